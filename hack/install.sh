#!/usr/bin/env bash
# Install the agent for good: a venv in /opt/edgelet, the command in /usr/local/bin, the unit where systemd runs.
# --uninstall takes exactly that back; configuration, record and pods stay, and are named.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
PREFIX=/opt/edgelet COMMAND=/usr/local/bin/edgelet UNIT=/etc/systemd/system/edgelet.service

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
has_systemd() { [ -d /run/systemd/system ]; }

if [ "$(id -u)" != 0 ]; then fail "this writes to /opt and /usr/local: sudo make install"; fi

if [ "${1:-}" = --uninstall ]; then
  if has_systemd && [ -e "$UNIT" ]; then systemctl disable --quiet --now edgelet; fi
  rm -f "$UNIT"
  if [ "$(readlink "$COMMAND" || true)" = "$PREFIX/bin/edgelet" ]; then rm -f "$COMMAND"; fi
  rm -rf "$PREFIX"
  if has_systemd; then systemctl daemon-reload; fi
  echo "removed. What stays: /etc/edgelet (settings), /var/lib/edgelet and /var/lib/edgelet.key (record), the pods in containerd"
  exit
fi

hack/venv.sh run
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" .
if [ -e "$COMMAND" ] && [ "$(readlink "$COMMAND" || true)" != "$PREFIX/bin/edgelet" ]; then
  fail "$COMMAND is not from here: move it away first"
fi
rm -rf "$PREFIX.new"
# The venv's own interpreter may be this folder's; the one that it was made from stays when the folder goes.
"$(.venv/bin/python -c 'import sys; print(sys._base_executable)')" -m venv "$PREFIX.new"
"$PREFIX.new/bin/python" -m pip install --quiet --disable-pip-version-check "$(echo "$work"/*.whl)[redis]"
rm -rf "$PREFIX"
mv "$PREFIX.new" "$PREFIX"
# Scripts in a venv name its interpreter by path.
grep -rlIF "$PREFIX.new" "$PREFIX/bin" "$PREFIX/pyvenv.cfg" | xargs -r sed -i "s|$PREFIX\.new|$PREFIX|g"
ln -sfn "$PREFIX/bin/edgelet" "$COMMAND"
mkdir -p /etc/edgelet
if has_systemd; then
  install -m 0644 scripts/edgelet.service "$UNIT"
  systemctl daemon-reload
  echo "installed. Write /etc/edgelet/config.yaml, then: systemctl enable --now edgelet"
else
  echo "installed. No systemd here: start it with 'edgelet run'"
fi
