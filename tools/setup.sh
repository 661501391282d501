#!/bin/sh
# Sets up what a fresh clone needs: the virtual environment, with "demo" the PACS and DCMTK, with "system" all programs
# that the tests talk to.
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
    apt_install "$@" && return
    # One that this system does not have must not keep the others away.
    failed=0
    for package; do apt_install "$package" 2>/dev/null || failed=1; done
    return $failed
}

apt_install() {
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
    echo "Installing Python packages into .venv (1.5 GB, several with CUDA; some minutes) ..." >&2
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

# Programs and the Debian package of each: what the demonstration talks to, and what the tests talk to beyond that.
of_demo="storescu:dcmtk Orthanc:orthanc"
of_tests="dciodvfy:dicom3tools chromium:chromium initdb:postgresql strace:strace"
plugins="DicomWeb:orthanc-dicomweb Python:orthanc-python"

has_program() {
    command -v "$1" >/dev/null 2>&1 || ls /usr/sbin/"$1" /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1
}

missing_packages() {
    for pair in $1; do
        has_program "${pair%%:*}" || echo "${pair##*:}"
    done
    for plugin in $2; do
        [ -e "/usr/share/orthanc/plugins/libOrthanc${plugin%%:*}.so" ] || echo "${plugin##*:}"
    done
}

# Lists of programs and of plugins.
system_packages() {
    missing=$(missing_packages "$1" "$2" | xargs)
    [ -n "$missing" ] || return 0
    echo "Installing system packages: $missing ..." >&2
    # shellcheck disable=SC2086
    install_packages $missing && return
    missing=$(missing_packages "$1" "$2" | xargs)
    echo "Could not install: $missing. What needs them is skipped by name; to have it: sudo apt-get install $missing" >&2
}

environment
case "${1:-}" in
demo) system_packages "$of_demo" "" ;;
system) system_packages "$of_demo $of_tests" "$plugins" ;;
esac
