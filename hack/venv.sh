#!/usr/bin/env bash
# Make .venv with what the agent needs ("run"), or with the developer's tools as well ("dev"), finding or installing a
# Python first. Quick when nothing has changed since: a stamp remembers what was installed from which files.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
has_command() { command -v "$1" >/dev/null; }

find_python() { # a Python that can make a venv wins over one that first needs a package
  local name second=''
  for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
    if ! is_new_enough "$name"; then continue; fi
    if can_make_venv "$name"; then command -v "$name"; return; fi
    second=${second:-$name}
  done
  printf '%s' "$second"
}

install_python() { # FOUND: the Python that lacks its venv module, or nothing
  if [ "$(id -u)" != 0 ]; then fail "no Python 3.11 or newer with venv here: install it, or run this as root"; fi
  if has_command apt-get; then
    local package=python3-venv
    if [ -n "$1" ] && [ "$1" != python3 ]; then package=${1##*/}-venv; fi
    echo "install python3 $package" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends python3 "$package"; } >/dev/null
  elif has_command dnf; then
    echo "install python3.12" >&2
    dnf install -qy python3.12 >/dev/null
  fi
}

fingerprint() { # of all that decides what an install puts there; the folder is in it because venvs can't be moved
  { pwd; cat pyproject.toml hack/stubs.py; find proto -name '*.proto' -print0 | sort -z | xargs -0 cat; } | sha256sum
}

is_current() { # KIND
  [ -d agent/cri/_generated ] && [ -x .venv/bin/python ] && [ "$(cat ".venv/installed-$1" 2>/dev/null)" = "$now" ] &&
    .venv/bin/python -c '' 2>/dev/null
}

case ${1:-} in run | dev) kind=$1 ;; *) echo "usage: venv.sh run|dev" >&2; exit 2 ;; esac
now=$(fingerprint)
if is_current "$kind" || { [ "$kind" = run ] && is_current dev; }; then exit; fi

python=$(find_python)
if [ -z "$python" ] || ! can_make_venv "$python"; then
  install_python "$python"
  python=$(find_python)
  if [ -z "$python" ] || ! can_make_venv "$python"; then fail "no Python 3.11 or newer with venv here, and none could be installed"; fi
fi
if ! [ -x .venv/bin/python ] || ! is_new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  rm -rf .venv
  "$python" -m venv .venv
fi
echo "install Python packages into .venv (once, and when pyproject.toml changes)" >&2
case $kind in run) target=. ;; dev) target='.[dev]' ;; esac
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$target" ||
  fail "pip could not install $target into .venv: see above"
printf '%s' "$now" >".venv/installed-$kind"
