#!/usr/bin/env bash
# How fast the service is: uploads, polls, submissions, metrics, checkpoints, start and rest, each against the bare library
# below it in the same run.
#
#   scripts/bench_service.sh [--quick] [--only MEASURE,…] [--build DIR] [--work DIR]
#
# Prints a line of JSON a measure, then a table, and keeps the lines in build/bench/service.jsonl. Takes about four minutes
# and 4 GB of disk (--quick: half a minute; its figures mean little). Polls want wrk: apt-get install wrk.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build
for ((i = 1; i <= $#; i++)); do
  [ "${!i}" != --build ] || { next=$((i + 1)); build=${!next}; }
done
cmake -S . -B "$build" -G Ninja -DBACKPROPD_TESTS=ON >/dev/null
cmake --build "$build" --target backpropd backpropd-bench-store backpropd-bench-http >/dev/null
exec python3 tests/bench/service.py "$@"
