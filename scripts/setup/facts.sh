# shellcheck shell=bash disable=SC2154,SC2034
# What kind of machine this is: read once, used by every later step. Changes nothing.

learn_facts() {
  learn_architecture
  learn_distribution
  learn_init
  learn_cgroups
  learn_capabilities
  check_oci_runtime
  have "$DISTRIBUTION on $ARCH, $INIT, $CGROUPS, cgroup driver $CGROUP_DRIVER"
  [ -z "$RESTRICT_OOM" ] || note "no CAP_SYS_RESOURCE here: pods can't get a lower OOM score than this process, containerd is told so"
}

learn_architecture() {
  case $(uname -m) in
    x86_64 | amd64) ARCH=amd64 ;;
    aarch64 | arm64) ARCH=arm64 ;;
    *) refuse "unsupported machine type '$(uname -m)': amd64 and arm64 are supported" ;;
  esac
}

learn_distribution() {
  local file=$ROOT/etc/os-release id='' like=''
  DISTRIBUTION='unknown distribution' PACKAGES=none
  if [ -r "$file" ]; then
    id=$(os_release_value ID "$file") like=$(os_release_value ID_LIKE "$file")
    DISTRIBUTION=$(os_release_value PRETTY_NAME "$file")
  fi
  case " $id $like " in
    *' debian '* | *' ubuntu '*) PACKAGES=apt ;;
    *' rhel '* | *' centos '* | *' fedora '*) if has_command dnf; then PACKAGES=dnf; else PACKAGES=yum; fi ;;
    *)
      [ -n "$NO_INSTALL" ] ||
        refuse "unsupported distribution '${id:-no ID in $file}': Debian, Ubuntu, RHEL, CentOS and Fedora are supported; with containerd, runc, CNI plugins and crictl installed by hand use --no-install"
      ;;
  esac
}

os_release_value() { # KEY FILE
  sed -n "s/^$1=//p" "$2" | tail -n 1 | tr -d "\"'"
}

learn_init() {
  if [ -d "$ROOT/run/systemd/system" ]; then INIT=systemd; else INIT='no systemd'; fi
}

learn_cgroups() {
  local tree=$ROOT/sys/fs/cgroup
  if [ -e "$tree/cgroup.controllers" ]; then
    CGROUPS='cgroup v2'
  elif [ -e "$tree/unified/cgroup.controllers" ] || [ -e "$tree/unified/cgroup.procs" ]; then
    CGROUPS='cgroup hybrid with v1 controllers'
  elif [ -d "$tree/memory" ]; then
    CGROUPS='cgroup v1'
  else
    CGROUPS='no cgroups'
    [ -n "$STAGING" ] || fail "no cgroup file system at /sys/fs/cgroup: mount one, containers can't run without it"
  fi
  if [ "$INIT" = systemd ]; then CGROUP_DRIVER=systemd; else CGROUP_DRIVER=cgroupfs; fi
}

# crun starts nothing where both generations have controllers, and says so only when the first pod is made.
check_oci_runtime() {
  local controllers=''
  if [ "$OCI_RUNTIME" != crun ] || [ -e "$ROOT/sys/fs/cgroup/cgroup.controllers" ]; then return 0; fi
  controllers=$(cat "$ROOT/sys/fs/cgroup/unified/cgroup.controllers" 2>/dev/null || true)
  [ -z "$controllers" ] ||
    refuse "crun does not run on this machine: its cgroups are hybrid, and version 2 has controllers too ($controllers). Use runc, or boot with systemd.unified_cgroup_hierarchy=1"
}

# Lowering an OOM score needs CAP_SYS_RESOURCE (bit 24). Containers and some micro VMs lack it, and then a sandbox (which
# asks for -998) fails to start unless containerd is told to settle for its own score.
learn_capabilities() {
  local set
  RESTRICT_OOM=''
  [ -r "$ROOT/proc/self/status" ] || return 0
  while read -r set; do
    if ! (((16#$set >> 24) & 1)); then RESTRICT_OOM=yes; fi
  done < <(awk '/^Cap(Bnd|Eff):/ { print $2 }' "$ROOT/proc/self/status")
}
