#!/bin/sh
# Sets up what a fresh clone needs: the virtual environment, and with "system" the programs that tests and demo talk to.
# Installs system packages only when they are missing and it may; says by name what stays away.
set -eu
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root true || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null 2>&1 || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null
}

find_python() {
    for name in python3.11 python3.12 python3.13 python3; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "Python 3.11, 3.12 or 3.13 is needed and none was found. Install one, for example: apt-get install python3" >&2
    return 1
}

environment() {
    python=$(find_python)
    if [ ! -x .venv/bin/python ]; then
        if ! "$python" -m venv .venv 2>/dev/null; then
            # Debian ships venv apart from Python itself.
            rm -rf .venv
            install_packages python3-venv || true
            "$python" -m venv .venv
        fi
    fi
    mark=.venv/installed-$(cksum pyproject.toml | cut -d' ' -f1)
    [ -e "$mark" ] && return
    echo "Installing Python packages into .venv (about 1.5 GB, some minutes) ..." >&2
    if command -v uv >/dev/null 2>&1; then
        UV_FIND_LINKS="${PIP_FIND_LINKS:-}" uv pip install -q --python .venv/bin/python -e '.[dev]'
    else
        .venv/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]' 2>.venv/pip.log || {
            cat .venv/pip.log >&2
            return 1
        }
    fi
    touch "$mark"
}

# Programs that tests and demo talk to, and the Debian package of each.
programs="storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc chromium:chromium initdb:postgresql strace:strace"

has_program() {
    command -v "$1" >/dev/null 2>&1 || ls /usr/sbin/"$1" /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1
}

system_packages() {
    missing=""
    for pair in $programs; do
        has_program "${pair%%:*}" || missing="$missing ${pair##*:}"
    done
    for plugin in DicomWeb:orthanc-dicomweb Python:orthanc-python; do
        [ -e "/usr/share/orthanc/plugins/libOrthanc${plugin%%:*}.so" ] || missing="$missing ${plugin##*:}"
    done
    [ -n "$missing" ] || return 0
    echo "Installing system packages:$missing ..." >&2
    # shellcheck disable=SC2086
    install_packages $missing ||
        echo "Could not install:$missing. What needs them is skipped by name; to have it: sudo apt-get install$missing" >&2
}

environment
[ "${1:-}" != system ] || system_packages
