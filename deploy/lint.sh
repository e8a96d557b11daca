#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All static checks; every one runs, and the exit status says whether any failed.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
BIN=.venv/bin
status=0

# check NAME COMMAND...: run one check quietly; show its output when it fails.
check() {
    local name="$1" output
    shift
    if output="$("$@" 2>&1)"; then
        printf '%-24s ok\n' "$name"
    else
        printf '%-24s FAILED\n%s\n' "$name" "$output"
        status=1
    fi
}

# type_check FOLDER...: mypy --strict over those folders that hold Python.
type_check() {
    local folder present=()
    for folder in "$@"; do
        [[ -d "$folder" && -n "$(find "$folder" -name '*.py' -print -quit)" ]] && present+=("$folder")
    done
    "$BIN/mypy" --strict "${present[@]}"
}

mapfile -t c_files < <(git ls-files --cached --others --exclude-standard -- '*.c' '*.h')
mapfile -t shell_files < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci/run)

check "ruff check" "$BIN/ruff" check --quiet .
check "ruff format" "$BIN/ruff" format --check .
check "mypy --strict" type_check services/*/src clients cli/src protos/generate.py tests bench
check "import-linter" "$BIN/lint-imports"
check "buf lint" "$BIN/buf" lint
check "buf format" "$BIN/buf" format --diff --exit-code
release="$(git describe --tags --abbrev=0 2>/dev/null)"
[[ -z "$release" ]] || check "buf breaking" "$BIN/buf" breaking --against ".git#tag=$release"
check "generated code" "$BIN/python" protos/generate.py --check
((${#c_files[@]} == 0)) || check "clang-format" "$BIN/clang-format" --dry-run --Werror "${c_files[@]}"
for file in "${shell_files[@]}"; do check "bash -n $(basename "$file")" bash -n "$file"; done
exit $status
