#!/usr/bin/env bash
# Compiles everything for aarch64 and runs it under QEMU: the same golden hashes as on x86-64 must come out.
#
#   scripts/aarch64.sh           the engine's kernels and golden hashes, and those of weights trained through the daemon
#   scripts/aarch64.sh --full    every unit test, and all of tests/determinism; an hour
#
# The compiler and the emulator are packages (scripts/setup.sh --aarch64); the libraries for aarch64 are unpacked into a
# folder of the build, build-aarch64/root, and nothing of them is installed. QEMU computes each instruction as the CPU
# would: what it shows is bits, not speed. On an aarch64 machine scripts/test.sh does all of this natively.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n=== %s (%s s)\n' "$*" "$SECONDS"; }

case "${1:-}" in
'') unit='^(base_|kernels_|graph_test_same_bytes|train_test_golden)' bytes='test_any or pause' ;;
--full) unit=. bytes='' ;;
*)
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 64
  ;;
esac

build=$PWD/build-aarch64 root=$PWD/build-aarch64/root
libraries=(libc6-dev libgomp1 libmicrohttpd-dev libjansson-dev libsqlite3-dev nettle-dev zlib1g-dev libcmocka-dev)

# The libraries and all that they need, by an apt that believes itself on an aarch64 machine where nothing is installed.
fetch_libraries() {
  local apt=$build/apt
  rm -rf "$root" "$apt"
  mkdir -p "$root" "$apt/lists/partial" "$apt/cache/archives/partial"
  : >"$apt/status"
  printf '%s "%s";\n' APT::Architecture arm64 Dir::State::Lists "$apt/lists" Dir::State::Status "$apt/status" \
    Dir::Cache "$apt/cache" APT::Sandbox::User root >"$apt/apt.conf"
  echo 'APT::Architectures { "arm64"; };' >>"$apt/apt.conf"
  APT_CONFIG=$apt/apt.conf apt-get update -qq
  APT_CONFIG=$apt/apt.conf apt-get install -qq -y --no-install-recommends --download-only "${libraries[@]}" >/dev/null
  for package in "$apt"/cache/archives/*.deb; do
    dpkg -x "$package" "$root"
  done
  # Some links (libm.so) name a file from the root of the system: of this one.
  find "$root" -type l -lname '/*' -printf '%l %p\n' | while read -r target link; do
    ln -sfn "$root$target" "$link"
  done
  rm -rf "$apt"
  echo "${libraries[*]}" >"$build/libraries"
}

say "set up"
scripts/setup.sh --aarch64
[ "$(cat "$build/libraries" 2>/dev/null)" = "${libraries[*]}" ] || fetch_libraries

say "build, warnings are errors"
cmake -S . -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$PWD/scripts/aarch64.cmake" -DBACKPROPD_SYSROOT="$root" \
  -DBACKPROPD_WERROR=ON >/dev/null
targets=()
if [ "$unit" != . ]; then
  mapfile -t targets < <(ctest --test-dir "$build" -N -R "$unit" | sed -n 's/^ *Test *#[0-9]*: //p')
  targets+=(backpropd)
fi
cmake --build "$build" ${targets[@]+--target "${targets[@]}"}

status=0
export BACKPROPD_TEST_PATIENCE=1500
say "unit tests"
ctest --test-dir "$build" --output-on-failure --timeout 1500 -R "$unit" || status=1

say "weights trained through the daemon"
cat >"$build/backpropd-emulated" <<EOF
#!/bin/sh
exec qemu-aarch64-static -L '$root' '$build/backpropd' "\$@"
EOF
chmod +x "$build/backpropd-emulated"
tests=tests/determinism
[ -z "$bytes" ] || tests=tests/determinism/test_same_bytes.py
BACKPROPD=$build/backpropd-emulated build/venv/bin/python -m pytest "$tests" -k "$bytes" || status=1

if [ $status = 0 ]; then
  say "aarch64 gives the same bytes"
else
  say "FAILED on aarch64; see above"
fi
exit $status
