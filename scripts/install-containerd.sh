#!/usr/bin/env bash
# Make this machine ready to run pods: containerd, runc, CNI plugins, a bridge network, crictl and a sandbox image.
#
# What is missing is installed: from the distribution, else from the upstream release, else built from pinned Go modules.
# What is there and works is left alone. Everything made here is remembered in /var/lib/edgelet-setup/made, and
# --uninstall takes back exactly that. Safe to run again at any time; --dry-run changes nothing.
#
# The parts, in the order in which they are used, are in setup/*.sh beside this file.
set -euo pipefail

# sudo's PATH leaves out where upstream binaries and Go live on some distributions.
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin
SCRIPTS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# A prefix for every file read or written. With it set, only configuration is written (to prepare a disk image, and for tests).
ROOT=${EDGELET_SETUP_ROOT:-}
ROOT=${ROOT%/}
STAGING=${ROOT:+yes}

SANDBOX_IMAGE=registry.k8s.io/pause:3.10.2
DEMO_IMAGE=docker.io/library/busybox:1.36
SOCKET=/run/containerd/containerd.sock
DEFAULT_CONFIG=/etc/containerd/config.toml

usage() {
  cat <<'TEXT'
usage: install-containerd.sh [options]

Installs and configures what this machine needs to run pods with containerd: Debian, Ubuntu, RHEL, CentOS, Fedora; amd64, arm64.

  --dry-run         print what would be done, change nothing
  --uninstall       take back what this script made, nothing else, and say what stays
  --oci-runtime R   what makes the containers: runc (default), or crun, which is smaller and faster
  --demo-image      also provide docker.io/library/busybox:1.36 (packed from this machine's busybox when it can't be pulled)
  --pod-cidr CIDR   IPv4 range of the bridge network (default 10.88.0.0/16, or another where that is taken)
  --offline         don't try to download or pull anything but distribution packages and Go modules
  --no-install      install no software: configure and start what is already here
  -h, --help        this text

environment: EDGELET_SETUP_ROOT=DIR writes only the configuration, below DIR (to prepare a disk image)
exit codes: 0 done, 1 failed, 2 wrong usage or unsupported machine
TEXT
}

DRY_RUN='' UNINSTALL='' WITH_DEMO_IMAGE='' OFFLINE='' NO_INSTALL='' POD_CIDR='' OCI_RUNTIME=runc

read_options() {
  local option
  while [ $# -gt 0 ]; do
    option=$1
    case $1 in
      --dry-run) DRY_RUN=yes ;;
      --uninstall) UNINSTALL=yes ;;
      --demo-image) WITH_DEMO_IMAGE=yes ;;
      --offline) OFFLINE=yes ;;
      --no-install) NO_INSTALL=yes ;;
      --oci-runtime) OCI_RUNTIME=${2:-}; shift || true ;;
      --oci-runtime=*) OCI_RUNTIME=${1#*=} ;;
      --pod-cidr) POD_CIDR=${2:-}; shift || true ;;
      --pod-cidr=*) POD_CIDR=${1#*=} ;;
      -h | --help) usage; exit 0 ;;
      *) refuse "unknown option '$1' (see --help)" ;;
    esac
    shift || refuse "$option needs a value (see --help)"
  done
  case $OCI_RUNTIME in
    runc | crun) ;;
    *) refuse "--oci-runtime '$OCI_RUNTIME' is not known: runc or crun" ;;
  esac
  # Lengths are whole numbers here on purpose: host-local needs room for a gateway and pods.
  [[ -z $POD_CIDR || $POD_CIDR =~ ^([0-9]{1,3}\.){3}0/(1[0-9]|2[0-4])$ ]] ||
    refuse "--pod-cidr '$POD_CIDR' is not an IPv4 range between /10 and /24, such as 10.88.0.0/16"
}

# shellcheck source-path=SCRIPTDIR source=setup/common.sh
. "$SCRIPTS/setup/common.sh"
# shellcheck source-path=SCRIPTDIR source=setup/facts.sh
. "$SCRIPTS/setup/facts.sh"
# shellcheck source-path=SCRIPTDIR source=setup/software.sh
. "$SCRIPTS/setup/software.sh"
# shellcheck source-path=SCRIPTDIR source=setup/config.sh
. "$SCRIPTS/setup/config.sh"
# shellcheck source-path=SCRIPTDIR source=setup/runtime.sh
. "$SCRIPTS/setup/runtime.sh"
# shellcheck source-path=SCRIPTDIR source=setup/images.sh
. "$SCRIPTS/setup/images.sh"
# shellcheck source-path=SCRIPTDIR source=setup/undo.sh
. "$SCRIPTS/setup/undo.sh"

main() {
  read_options "$@"
  [ -n "$DRY_RUN$STAGING" ] || [ "$(id -u)" = 0 ] || refuse "must run as root: sudo $0 $*"
  take_lock
  if [ -n "$UNINSTALL" ]; then
    step "taking back what was made" uninstall
    return
  fi
  step "looking at this machine" learn_facts
  step "installing software" provide_software
  step "preparing the kernel" prepare_kernel
  step "configuring crictl" configure_crictl
  step "configuring the pod network" configure_network
  step "configuring containerd" configure_containerd
  if [ -n "$STAGING" ]; then
    say "staged below $ROOT: no software installed, nothing started"
    return
  fi
  step "starting containerd" ensure_containerd_runs
  step "providing images" provide_images
  step "checking the result" check_result
}

main "$@"
