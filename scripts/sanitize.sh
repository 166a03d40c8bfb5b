#!/usr/bin/env bash
# Builds with a sanitizer and runs the tests under it.
#
#   scripts/sanitize.sh memory [arguments of pytest]   AddressSanitizer and UndefinedBehaviorSanitizer
#   scripts/sanitize.sh thread [arguments of pytest]   ThreadSanitizer
#
# Both build with clang: ThreadSanitizer needs its OpenMP (that of gcc gives false reports), and gcc 12 takes minutes for
# the generic kernels with UndefinedBehaviorSanitizer. Without arguments of pytest all tests run; --unit: the unit tests
# alone. The build is build-memory or build-thread.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-}
shift || true
case $kind in
memory)
  compiler=clang-14 sanitize=address,undefined
  export ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1
  # clang's OpenMP does not free what it keeps for its own threads.
  export LSAN_OPTIONS="suppressions=$PWD/tests/leaks.txt:print_suppressions=0"
  ;;
thread)
  compiler=clang-14 sanitize=thread
  # The C libraries are not instrumented; what happens inside them is not ours.
  export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 ignore_noninstrumented_modules=1"
  ;;
*)
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 64
  ;;
esac
build=build-$kind
cmake -S . -B "$build" -G Ninja -DCMAKE_C_COMPILER=$compiler -DCMAKE_BUILD_TYPE=Debug -DBACKPROPD_SANITIZE=$sanitize >/dev/null
cmake --build "$build"
ctest --test-dir "$build" --output-on-failure
[ "${1:-}" = --unit ] || BACKPROPD=$PWD/$build/backpropd build/venv/bin/python -m pytest "${@:-tests}"
