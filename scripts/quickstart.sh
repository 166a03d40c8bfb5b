#!/usr/bin/env bash
# From a fresh checkout to a trained network: sets up, builds, starts a daemon, trains, downloads the weights, predicts.
#
#   scripts/quickstart.sh         trains on two spirals (a few seconds)
#   scripts/quickstart.sh DIR     trains on MNIST: DIR holds its four files (train-images-idx3-ubyte,
#                                 train-labels-idx1-ubyte and the two of t10k, each also as .gz)
#
# The daemon listens on a free port of 127.0.0.1 with a data directory of its own, and is stopped at the end. With
# BACKPROPD=FILE in the environment that executable is used, and nothing is set up or built.
set -euo pipefail

case "${1:-}" in -h | --help)
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 0
  ;;
esac
mnist=${1:+$(realpath -- "$1")}
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

daemon=
stop_daemon() {
  if [ -n "$daemon" ]; then
    kill -TERM "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    daemon=
  fi
}
trap stop_daemon EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The file of that name in the MNIST folder, compressed or not, with '.' or '-' before "idx".
mnist_file() {
  local name
  for name in "$1" "$1.gz" "${1/-idx/.idx}" "${1/-idx/.idx}.gz"; do
    if [ -f "$mnist/$name" ]; then
      printf '%s\n' "$mnist/$name"
      return
    fi
  done
  die "there is no $1 (or $1.gz) in $mnist"
}

if [ -n "$mnist" ]; then
  files=(-F "inputs=@$(mnist_file train-images-idx3-ubyte)" -F "targets=@$(mnist_file train-labels-idx1-ubyte)"
    -F "test_inputs=@$(mnist_file t10k-images-idx3-ubyte)" -F "test_targets=@$(mnist_file t10k-labels-idx1-ubyte)")
fi

# --- build --------------------------------------------------------------------------------------------------------
backpropd=${BACKPROPD:-$PWD/build/backpropd}
if [ -z "${BACKPROPD:-}" ]; then
  scripts/setup.sh --run-only
  say "building $backpropd"
  tests=ON
  pkg-config --exists cmocka || tests=OFF
  cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBACKPROPD_TESTS=$tests >/dev/null
  if [ -t 1 ]; then # ninja shows how far it is
    cmake --build build --target backpropd
  elif ! built=$(cmake --build build --target backpropd 2>&1); then
    die "the build failed: $built"
  fi
fi

# --- start --------------------------------------------------------------------------------------------------------
work=$(mktemp -d "${TMPDIR:-/tmp}/backpropd-quickstart.XXXXXX")
log=$work/daemon.log
"$backpropd" --listen 127.0.0.1:0 --data-dir "$work/data" >"$log" 2>&1 &
daemon=$!
url=
for _ in $(seq 100); do
  url=$(grep -om1 'http://127\.0\.0\.1:[0-9]*' "$log" || true)
  [ -z "$url" ] || break
  kill -0 "$daemon" 2>/dev/null || break
  sleep 0.1
done
[ -n "$url" ] || { cat "$log" >&2; die "the daemon did not start"; }
say "backpropd is running at $url, its data in $work/data"

# api METHOD PATH [curl options]: the reply's body; a problem is shown and ends the script.
api() {
  local method=$1 path=$2 reply
  shift 2
  if ! reply=$(curl -sS --fail-with-body -X "$method" "$@" "$url$path"); then
    jq -r '"\(.status) \(.detail)", (.errors[]? | "  \(.pointer): \(.detail)")' <<<"$reply" >&2 2>/dev/null || say "$reply" >&2
    die "$method $path failed"
  fi
  printf '%s\n' "$reply"
}

# --- train --------------------------------------------------------------------------------------------------------
if [ -n "$mnist" ]; then
  say "uploading MNIST"
  api POST /v1/datasets -F name=mnist "${files[@]}" |
    jq -r '"dataset \(.name): \(.rows) rows, of these \(.test_rows // 0) for test"'
  spec='{"name": "mnist", "dataset": "mnist", "target": "target", "layers": [512, 256], "optimizer": "adam",
    "epochs": 5, "batch_size": 128}'
else
  awk -f scripts/spirals.awk >"$work/spirals.csv"
  api PUT /v1/datasets/spirals -T "$work/spirals.csv" | jq -r '"dataset \(.name): \(.rows) rows"'
  spec='{"name": "spirals", "dataset": "spirals", "target": "arm", "layers": [64, 64], "optimizer": {"type": "adam",
    "lr": 0.01}, "epochs": 150}'
fi
say "spec: $(jq -c . <<<"$spec")"
job=$(api POST /v1/jobs -d "$spec" | jq -r .id)

# One line that is written over on a terminal, else a line for each status and tenth of the way.
shown=
while :; do
  IFS=$'\t' read -r status epoch epochs percent figures < <(api GET "/v1/jobs/$job" | jq -r '
    [.status, .progress.epoch // 0, .progress.epochs // 0, (100 * (.progress.fraction // 0) | floor),
     ([.metrics.last // {} | to_entries[] | select(.key | test("^(loss|val_loss|val_accuracy)$"))
       | "\(.key) \(.value * 10000 | round / 10000)"] | join("  "))] | @tsv')
  line="$job $status  epoch $epoch/$epochs  $percent %  $figures"
  if [ -t 1 ]; then
    printf '\r\033[K%s' "$line"
  elif [ "$status $((percent / 10))" != "$shown" ]; then
    shown="$status $((percent / 10))"
    say "$line"
  fi
  case $status in succeeded | failed | cancelled) break ;; esac
  sleep 0.2
done
[ ! -t 1 ] || say ""
[ "$status" = succeeded ] || die "the job $status: $(api GET "/v1/jobs/$job" | jq -c .error)"

# --- use ----------------------------------------------------------------------------------------------------------
weights=$work/weights.safetensors
curl -sS --fail-with-body -o "$weights" "$url/v1/jobs/$job/weights.safetensors" || die "the download failed"
say "weights: $weights ($(stat -c %s "$weights") bytes)"

api POST "/v1/jobs/$job/evaluate" | jq -r '"\(.split) accuracy: \(.metrics.accuracy) on \(.rows) rows"'
if [ -z "$mnist" ]; then
  rows='{"rows": [{"x": 0.35, "y": 0.2}, {"x": -0.35, "y": -0.2}]}'
  say "predictions for $rows"
  api POST "/v1/jobs/$job/predict" -d "$rows" | jq -c '.predictions[]'
fi

stop_daemon
say ""
say "To go on with the same data:"
say "  $backpropd --data-dir $work/data"
say "  curl http://127.0.0.1:8080/v1/jobs/$job"
