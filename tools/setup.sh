#!/bin/sh
# Makes .venv with nmtool and what its tests need. Says nothing when it succeeds but that it began; shows pip's log
# when it fails. Run by the Makefile when pyproject.toml or constraints.txt is newer than the last set-up.
#
#   PYTHON=python3.12 sh tools/setup.sh
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

stop() {
    echo "set-up: $1" >&2
    exit 1
}

pip() {
    .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"
}

command -v "$python" >/dev/null 2>&1 || stop "no '$python' found. Install Python 3.10 or newer, or name one: make PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "$("$python" --version) is too old. nmtool needs Python 3.10 or newer: make PYTHON=python3.12"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "'$python' has no venv module. Install it (Debian, Ubuntu: apt install python3-venv), then run make again."

echo "set-up: making .venv with $("$python" --version) (once; a few minutes)" >&2
mkdir -p .venv
log=.venv/setup.log
{
    "$python" -m venv .venv &&
        pip install 'pip>=22' && # older ones cannot install a pyproject.toml in place
        pip install -c constraints.txt -e '.[dev]'
} >"$log" 2>&1 </dev/null || {
    cat "$log" >&2
    stop "failed; the log above is in $log."
}
touch .venv/.set-up
