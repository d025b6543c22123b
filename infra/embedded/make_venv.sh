#!/bin/sh
# Makes the virtual environment .venv: make_venv.sh PYTHON
set -eu
python=$1

if ! command -v "$python" >/dev/null; then
    echo "error: there is no $python. Install Python 3.11 or newer, or say where it is: make setup PYTHON=/path/to/python3" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: $("$python" --version) is too old: Sluice needs 3.11 or newer. Say where one is: make setup PYTHON=/path/to/python3" >&2
    exit 1
fi
if [ -x .venv/bin/pip ]; then
    exit 0
fi

# Installs Debian packages: install WHY PACKAGE...
install() {
    why=$1
    shift
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        echo "error: $why. Install what is missing: apt-get install $*" >&2
        exit 1
    fi
    $as_root apt-get update -q || echo "apt-get update failed; trying with the lists that are there"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian keeps these two modules in a package of their own.
    install "$python cannot make virtual environments" python3-venv
fi
# llama-cpp-python comes as source alone, and pip brings cmake and ninja along: minutes of work, once.
if ! command -v c++ >/dev/null; then
    install "there is no C++ compiler, which llama.cpp is built with" g++
fi
"$python" -m venv --clear .venv
