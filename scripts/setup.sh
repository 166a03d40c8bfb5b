#!/usr/bin/env bash
# Installs what building, running and testing backpropd needs, from the distribution's own packages.
#
#   scripts/setup.sh              everything: libraries, compilers, test tools, and a Python environment in build/venv
#   scripts/setup.sh --run-only   what building and running the daemon needs, nothing for tests
#   scripts/setup.sh --aarch64    everything, and what compiles for aarch64 and emulates it
#
# It can be run again at any time: what is there already is left alone, and nothing is asked or printed then.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "setup: $*"; exit 1; }

run=(gcc libc6-dev cmake ninja-build pkg-config libgomp1 libmicrohttpd-dev libjansson-dev libsqlite3-dev nettle-dev
  zlib1g-dev curl jq)
develop=(build-essential libcmocka-dev clang-14 libomp-14-dev libclang-rt-14-dev llvm-14 clang-format-14
  clang-tidy-14 shellcheck python3 python3-venv python3-pytest python3-requests python3-numpy python3-torch)

aarch64=(gcc-aarch64-linux-gnu qemu-user-static)

packages=("${run[@]}")
case "${1:-}" in
'') packages+=("${develop[@]}") ;;
--aarch64) packages+=("${develop[@]}" "${aarch64[@]}") ;;
--run-only) ;;
-h | --help)
  sed -n '2,8s/^# \{0,1\}//p' "$0"
  exit 0
  ;;
*) die "unknown option '$1'; there are --run-only and --aarch64" ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  die "this needs a system with apt-get (Debian 12 or a relative); elsewhere install by hand: ${packages[*]}"
fi

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo here; as root run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "setup: installing ${missing[*]}"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # The lists may be old or not there at all: only when installing fails are they worth a fetch.
  install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}")
  if ! "${install[@]}" >"$log" 2>&1; then
    "${as_root[@]}" apt-get update >"$log" 2>&1 || { cat "$log" >&2; die "apt-get update failed"; }
    "${install[@]}" >"$log" 2>&1 || { cat "$log" >&2; die "apt-get install failed"; }
  fi
fi

# The reference reader of safetensors is not packaged by the distribution: tests take it from PyPI, into an
# environment of their own that sees the system's NumPy and torch.
if [ "${1:-}" != --run-only ]; then
  venv=build/venv
  if ! cmp -s tests/requirements.txt "$venv/requirements.txt"; then
    say "setup: making the Python environment of the tests in $venv"
    /usr/bin/python3 -m venv --clear --system-site-packages "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
    cp tests/requirements.txt "$venv/requirements.txt"
  fi
fi
