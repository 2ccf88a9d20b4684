#!/usr/bin/env bash
# Install what the integration tests, `make cluster` and `make bench` use of the distribution, and what else is named: packages
# whose command has the same name. Only what is missing, and only here: users' machines are set up by
# scripts/install-containerd.sh.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
has_command() { command -v "$1" >/dev/null; }

if [ "$(id -u)" != 0 ]; then fail "starting containers needs root: use sudo"; fi

missing=()
need() { has_command "$1" || missing+=("$2"); } # COMMAND PACKAGE
need containerd containerd
need runc runc
need ip iproute2
need iptables iptables
need conntrack conntrack
need socat socat
need faketime faketime
need redis-check-rdb redis-tools # it is redis-server under another name; the package of that name would start a service
for package in "$@"; do need "$package" "$package"; done
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || [ -x /usr/libexec/cni/bridge ] || missing+=(containernetworking-plugins)
if [ ${#missing[@]} = 0 ]; then exit; fi

if ! has_command apt-get; then
  fail "missing here: ${missing[*]}. Install them (scripts/install-containerd.sh does most of it), then try again"
fi
echo "install ${missing[*]}" >&2
{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends "${missing[@]}"; } >/dev/null ||
  fail "apt-get could not install ${missing[*]}: see above"
