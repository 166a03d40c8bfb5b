#!/usr/bin/env bash
# Sets up, builds and runs all tests: the unit tests with ctest, the daemon's with pytest.
#
#   scripts/test.sh [arguments of pytest]      e.g. scripts/test.sh -k weights
#
# Ends with 0 when both pass. In CI (CI is set) a compiler warning is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
werror=OFF
[ -z "${CI:-}" ] || werror=ON
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBACKPROPD_TESTS=ON -DBACKPROPD_WERROR=$werror >/dev/null
cmake --build build

status=0
ctest --test-dir build --output-on-failure || status=1
BACKPROPD=$PWD/build/backpropd build/venv/bin/python -m pytest tests "$@" || status=1
exit $status
