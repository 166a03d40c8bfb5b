#!/usr/bin/env bash
# How cost grows: scripts/growth.sh [--only NAME,…] [--quick]
# Measures speed over width, depth, batch, rows and threads, memory over parameters, the database over checkpoints and
# metrics; prints a table and writes the plots in tests/bench/plots. About two minutes on an idle machine.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -f build/CMakeCache.txt ] || cmake -S . -B build -G Ninja >/dev/null
cmake --build build --target backpropd backpropd-bench >&2
exec python3 tests/bench/growth.py "$@"
