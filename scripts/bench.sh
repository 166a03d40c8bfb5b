#!/usr/bin/env bash
# Training beside its peers: scripts/bench.sh [--quick] [--runs N] [--readme] [option of tests/bench/compare.py]…
#   --quick    no peers, short repeats: half a minute, and nothing to install
#   --runs N   so many runs, then the table of their medians
#   --readme   then writes the performance section of README.md from the newest results (of this and earlier runs)
#   BENCH_VENV=DIR takes the peers from another virtual environment (default build/bench-venv, made here)
# Peers: PyTorch, JAX, scikit-learn, H2O-3 and kann (through cynn) from PyPI; the distribution's PyTorch. With root, what
# they need of Debian is installed. The machine should be idle. Results: build/bench/*.json; about 5 minutes a run.
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

# What is there already is left alone. A peer that cannot be had is left out, loudly; the others are measured.
install() { # NAME COMMAND…
    local name=$1 begin=$SECONDS
    shift
    say "installing $name"
    if "$@" >>build/bench/install.log 2>&1; then
        say "  done in $((SECONDS - begin)) s"
    else
        say "WARNING: $name cannot be installed, see build/bench/install.log"
    fi
}
apt() { apt-get install -y --no-install-recommends "$1" || { apt-get update && apt-get install -y --no-install-recommends "$1"; }; }
debian() { # NAME PACKAGE
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$2" 2>/dev/null)" = installed ] || install "$1" apt "$2"
}
pypi() { # NAME MODULE PACKAGE…
    "$venv/bin/python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$2') is None)" ||
        install "$1" "$venv/bin/pip" install -q "${@:3}"
}

if ((quick)); then
    rest+=(--peers none --seconds 0.2 --repeat 1)
else
    mkdir -p build/bench
    : >build/bench/install.log
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        debian "PyTorch of Debian" python3-torch
        debian "OpenBLAS" libopenblas-dev
        debian "a C++ compiler, for compiled PyTorch" g++
        command -v java >/dev/null || debian "Java" default-jre-headless
    fi
    if [ ! -x "$venv/bin/pip" ]; then
        say "making $venv, which takes some minutes and 7 GB: PyTorch of PyPI brings CUDA"
        python3 -m venv "$venv"
    fi
    pypi PyTorch torch torch
    pypi JAX jax jax
    pypi scikit-learn sklearn scikit-learn threadpoolctl
    pypi H2O-3 h2o h2o
    # kann as its user would build it for this machine, and with OpenBLAS for the products
    CFLAGS="-O3 -march=native" pypi kann cynn --no-cache-dir --no-binary cynn cynn
    [ -d "$venv/kann-openblas/cynn" ] ||
        CFLAGS="-O3 -march=native -DHAVE_CBLAS" LDFLAGS="-Wl,--no-as-needed -lopenblas" \
            install "kann with OpenBLAS" "$venv/bin/pip" install -q --no-cache-dir --no-binary cynn --no-deps \
            --target "$venv/kann-openblas" cynn
    python=$venv/bin/python
fi

for ((i = 0; i < runs; i++)); do
    say "run $((i + 1)) of $runs"
    "$python" tests/bench/compare.py --venv "$venv" ${rest[@]+"${rest[@]}"}
done
((quick)) || "$python" tests/bench/submit.py
if ((runs > 1)); then
    "$python" tests/bench/report.py --last "$runs"
fi
if ((readme)); then
    "$python" tests/bench/report.py --readme README.md
fi
