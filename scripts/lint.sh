#!/usr/bin/env bash
# Format, lint and house rules: scripts/lint.sh [--fix] [--no-tidy]
#   --fix      format the sources instead of complaining
#   --no-tidy  leave out clang-tidy (it takes a minute)
# Needs clang-format-14, clang-tidy-14 and shellcheck (scripts/setup.sh installs them).
set -euo pipefail
cd "$(dirname "$0")/.."
fix=0 tidy=1
for argument in "$@"; do
    case $argument in
    --fix) fix=1 ;;
    --no-tidy) tidy=0 ;;
    *)
        echo "usage: scripts/lint.sh [--fix] [--no-tidy]" >&2
        exit 64
        ;;
    esac
done
failed=0
complain() {
    printf 'lint: %s\n' "$1" >&2
    failed=1
}

mapfile -t sources < <(git ls-files -co --exclude-standard 'engine/*.[ch]' 'server/*.[ch]' 'tests/*.[ch]' |
    grep -v /golden/) # data, written by scripts
if ((fix)); then
    clang-format-14 -i "${sources[@]}"
else
    for file in "${sources[@]}"; do
        clang-format-14 "$file" | cmp -s - "$file" || complain "$file: format differs (scripts/lint.sh --fix)"
    done
fi

# Layers: arrows go down only. engine/ knows nothing of HTTP, JSON or SQL, nor of the server.
if grep -nE '#include *[<"](microhttpd|jansson|sqlite3|nettle|zlib|http/|store/|data/|jobs/|api/|export/)' \
    -r engine --include='*.[ch]'; then
    complain "engine/ includes something of the server's"
fi
floors="base kernels graph ops train"
below() { # the floors that a floor may include
    case $1 in
    base) echo base ;;
    kernels) echo "base kernels" ;;
    graph | ops) echo "base kernels graph ops" ;;
    train) echo "$floors" ;;
    esac
}
for floor in $floors; do
    for other in $floors; do
        [[ " $(below "$floor") " == *" $other "* ]] && continue
        if grep -nE "#include \"$other/" -r "engine/$floor" --include='*.[ch]'; then
            complain "engine/$floor includes engine/$other, which is above it"
        fi
    done
done
if grep -rnE '#include *<(microhttpd)' server --include='*.[ch]' | grep -v '^server/http/' |
    grep -v '^server/api/service.c'; then
    complain "libmicrohttpd outside server/http"
fi
if grep -rnE '#include *<sqlite3' server --include='*.[ch]' | grep -v '^server/store/' | grep -v '^server/api/service.c'; then
    complain "SQLite outside server/store"
fi

# Sizes: a file is a room that one can take in. Kernels and tables may be longer.
while read -r lines file; do
    [[ $file == total || $file == *kernels/* || $file == *fields*.c ]] && continue
    ((lines > 600)) && complain "$file has $lines lines: split it (600 at most, 400 usually)"
done < <(wc -l "${sources[@]}")

if grep -nE -- '^[^#]*(-ffast[-]math|-Ofast)' CMakeLists.txt; then
    complain "fast math breaks the promise of equal bytes"
fi
if grep -rnEw '(TO[D]O|FIX[M]E|X[X]X|HAC[K])' engine server schema tests scripts --include='*.[ch]' --include='*.sql' \
    --include='*.py'; then
    complain "something is left undone by its own words"
fi
shellcheck scripts/*.sh .ci/run || complain "shellcheck"
git ls-files -z -co --exclude-standard '*.py' | xargs -0 python3 -m py_compile || complain "a Python file does not compile"

if ((tidy)); then
    build=${BUILD:-build}
    [[ -f $build/compile_commands.json ]] || cmake -S . -B "$build" -G Ninja >/dev/null
    mapfile -t tidied < <(git ls-files -co --exclude-standard 'engine/*.c' 'server/*.c')
    printf '%s\n' "${tidied[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy-14 -p "$build" --quiet 2>/dev/null ||
        complain "clang-tidy"
fi
exit $failed
