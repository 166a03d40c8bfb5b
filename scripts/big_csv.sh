#!/usr/bin/env bash
# How fast a large CSV is taken in, and in how much memory: makes one, uploads it, and measures the daemon.
#
#   scripts/big_csv.sh [MB]      of 1,000,000 bytes, 100 by default; 2000 is a good load, and needs about 4 GB of disk
#
# The last line is for scripts: megabytes, seconds, MB/s, and by how many KiB the daemon's resident memory peaked above
# what it had before. With BACKPROPD=FILE in the environment that executable is measured, else build/backpropd.
set -euo pipefail

case "${1:-}" in -h | --help)
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 0
  ;;
esac
megabytes=${1:-100}
backpropd=${BACKPROPD:-$(dirname "$0")/../build/backpropd}
case $megabytes in '' | *[!0-9]* | 0) printf 'big_csv: the size is a number of megabytes\n' >&2; exit 64 ;; esac

work=$(mktemp -d "${TMPDIR:-/tmp}/big_csv.XXXXXX")
daemon=
finish() {
  [ -z "$daemon" ] || { kill -TERM "$daemon" && wait "$daemon"; } 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# One block of rows, again and again: numbers with few and many digits, a category, a missing value now and then.
awk 'BEGIN {
  srand(1)
  for (row = 0; row < 100000; row++)
    printf "%.6f,%.3f,%d,%s,%s,%.10g,%d\n", rand() * 100, rand() - 0.5, rand() * 1e6,
      substr("red  greenblue ", 1 + 5 * int(rand() * 3), 5), (rand() < 0.02 ? "" : sprintf("%.4f", rand())),
      rand() * 1e-5, row % 2
}' >"$work/block"
{
  echo "a,b,count,color,sometimes,tiny,label"
  # head ends the endless repetition, so that cat dies of a closed pipe: that is meant
  { while cat "$work/block"; do :; done || true; } 2>/dev/null | head -c "$((megabytes * 1000000))"
} | sed '$d' >"$work/big.csv"
rm "$work/block"

"$backpropd" --listen 127.0.0.1:0 --data-dir "$work/data" --max-upload 64G 2>"$work/log" &
daemon=$!
url=
for _ in $(seq 1 600); do
  url=$(sed -n 's/.* ready on \(http[^ ]*\) .*/\1/p' "$work/log")
  [ -z "$url" ] || break
  kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.05
done

kilobytes() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$daemon/status"; }
echo 5 >"/proc/$daemon/clear_refs" 2>/dev/null || true # the peak is counted from here on, where that is allowed
before=$(kilobytes VmRSS)
seconds=$(curl -sSf -T "$work/big.csv" -o "$work/profile" -w '%{time_total}' "$url/v1/datasets/big")
peak=$(kilobytes VmHWM)
rows=$(sed -n 's/.*"rows":\([0-9]*\).*/\1/p' "$work/profile" | head -n 1)
bytes=$(stat -c %s "$work/big.csv")

printf '%s rows uploaded, synced, read and stored; %s KiB resident before, %s KiB at the peak\n' "$rows" "$before" "$peak"
awk -v bytes="$bytes" -v seconds="$seconds" -v grown="$((peak - before))" \
  'BEGIN { printf "%.1f MB in %.2f s: %.1f MB/s, grown by %d KiB\n", bytes / 1e6, seconds, bytes / 1e6 / seconds, grown }'
