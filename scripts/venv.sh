#!/bin/sh
# Make the virtual environment $1 with the interpreter $2, on a machine that may have nothing but Python itself:
# Debian and Ubuntu split ensurepip off into python3.X-venv, which is installed here when it is missing.
set -eu
venv=$1
python=$2

say() { echo "$*" >&2; }

if ! command -v "$python" >/dev/null 2>&1; then
    say "error: there is no $python"
    say "hint: install Python 3.11 or later, or name yours: make PYTHON=/path/to/python3.12 ..."
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "error: $python is Python $version; 3.11 or later is needed"
    say "hint: name another one: make PYTHON=python3.12 ..."
    exit 1
fi

can_make() { "$python" -c 'import venv; from ensurepip import version' >/dev/null 2>&1; }

# apt-get as root: directly, or through a sudo that asks nothing.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

if ! can_make && command -v apt-get >/dev/null 2>&1; then
    say "$python has no ensurepip: installing python$version-venv"
    as_root apt-get update -q >&2 || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "python$version-venv" >&2 || true
fi
if ! can_make; then
    say "error: $python cannot make virtual environments: it has no ensurepip"
    say "hint: install it as root (Debian, Ubuntu: apt-get install python$version-venv), then run this again"
    exit 1
fi

rm -rf "$venv"
"$python" -m venv "$venv"
# Dependency groups need pip 25.1.
"$venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
