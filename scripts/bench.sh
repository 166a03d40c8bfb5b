#!/usr/bin/env bash
# Training beside its peers: scripts/bench.sh [--quick] [--runs N] [--readme] [option of tests/bench/compare.py]…
#   --quick    no peers, short repeats: half a minute, and nothing to install
#   --runs N   so many runs, then the table of their medians
#   --readme   then writes the performance section of README.md from the newest results (of this and earlier runs)
#   BENCH_VENV=DIR takes the peers from another virtual environment (default build/bench-venv, made here)
# Peers: PyTorch, JAX, scikit-learn, H2O-3 and kann (through cynn) from PyPI; the distribution's PyTorch. With root, what
# they need of Debian is installed. The machine should be idle. Results: build/bench/*.json; about 6 minutes a run.
set -euo pipefail
cd "$(dirname "$0")/.."
quick=0 runs=1 readme=0 rest=()
while (($#)); do
    case $1 in
    --quick) quick=1 ;;
    --runs) runs=$2 && shift ;;
    --readme) readme=1 ;;
    --help) sed -n '2,8s/^# //p' "$0" && exit ;;
    *) rest+=("$1") ;;
    esac
    shift
done
venv=${BENCH_VENV:-build/bench-venv}
python=python3
say() { printf '%s\n' "$*" >&2; }

[ -f build/CMakeCache.txt ] || cmake -S . -B build -G Ninja >/dev/null
cmake --build build --target backpropd backpropd-bench >&2

install() { # a peer that cannot be had is left out, loudly; the others are measured
    local name=$1
    shift
    "$@" >>build/bench/install.log 2>&1 || say "WARNING: $name cannot be installed, see build/bench/install.log"
}

if ((quick)); then
    rest+=(--peers none --seconds 0.2 --repeat 1)
else
    mkdir -p build/bench
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        dpkg -s python3-torch >/dev/null 2>&1 || install "Debian's PyTorch" apt-get install -y --no-install-recommends python3-torch
        dpkg -s libopenblas-dev >/dev/null 2>&1 || install OpenBLAS apt-get install -y --no-install-recommends libopenblas-dev
        command -v java >/dev/null || install Java apt-get install -y --no-install-recommends default-jre-headless
    fi
    if [ ! -x "$venv/bin/python" ]; then
        say "making $venv"
        python3 -m venv "$venv"
        for peer in torch jax "scikit-learn threadpoolctl" h2o matplotlib; do
            # shellcheck disable=SC2086 # two words are two packages
            install "$peer" "$venv/bin/pip" install -q $peer
        done
        # kann as its user would build it for this machine, and with OpenBLAS for the products
        CFLAGS="-O3 -march=native" install kann "$venv/bin/pip" install -q --no-cache-dir --no-binary cynn cynn
        CFLAGS="-O3 -march=native -DHAVE_CBLAS" LDFLAGS="-Wl,--no-as-needed -lopenblas" \
            install "kann with OpenBLAS" "$venv/bin/pip" install -q --no-cache-dir --no-binary cynn --no-deps \
            --target "$venv/kann-openblas" cynn
    fi
    python=$venv/bin/python
fi

for ((i = 0; i < runs; i++)); do
    "$python" tests/bench/compare.py --venv "$venv" ${rest[@]+"${rest[@]}"}
done
((quick)) || "$python" tests/bench/submit.py
if ((runs > 1)); then
    "$python" tests/bench/report.py --last "$runs"
fi
if ((readme)); then
    "$python" tests/bench/report.py --readme README.md
fi
