# shellcheck shell=bash disable=SC2154,SC2034
# Configuration: kernel settings, crictl, the pod network, containerd. What works is left alone; what can't work is replaced and
# the previous file kept.

BRIDGE=edgelet0 # a name of our own: cni0 belongs to whatever network plugin was here before
CONFIG_CHANGED=''

# --- kernel --------------------------------------------------------------------------------------------------------

prepare_kernel() {
  local module
  if [ -n "$STAGING" ]; then
    place_kernel_files
    return
  fi
  for module in overlay br_netfilter; do
    if module_is_there "$module"; then
      have "kernel module $module"
    elif ! has_command modprobe; then
      note "kernel module $module: not loaded, and there is no modprobe here"
    elif [ -n "$DRY_RUN" ]; then
      did "modprobe $module"
    elif modprobe "$module" 2>/dev/null; then
      did "load kernel module $module"
    else
      note "kernel module $module can't be loaded here$(module_matters "$module")"
    fi
  done
  place_kernel_files
  set_kernel_value net.ipv4.ip_forward
  set_kernel_value net.bridge.bridge-nf-call-iptables
  set_kernel_value net.bridge.bridge-nf-call-ip6tables
}

module_is_there() {
  case $1 in
    overlay) grep -qw overlay /proc/filesystems ;;
    br_netfilter) [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] ;;
  esac
}

module_matters() {
  case $1 in
    overlay) printf ': containerd uses its slower native snapshotter' ;;
    br_netfilter) printf ': service addresses may not work between pods of this node' ;;
  esac
}

place_kernel_files() { # only where something reads them at boot
  [ "$INIT" = systemd ] || return 0
  place_file /etc/modules-load.d/edgelet.conf $'overlay\nbr_netfilter' keep "kernel modules at boot"
  place_file /etc/sysctl.d/99-edgelet.conf \
    $'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1' keep "kernel settings at boot"
}

set_kernel_value() { # KEY: to 1
  local file=/proc/sys/${1//.//}
  if [ ! -e "$file" ]; then
    note "$1: this kernel doesn't have it"
  elif [ "$(cat "$file")" = 1 ]; then
    have "$1 = 1"
  elif [ -n "$DRY_RUN" ]; then
    did "set $1 = 1"
  elif { echo 1 >"$file"; } 2>/dev/null; then
    did "set $1 = 1"
  else
    note "$1 can't be set to 1 here: pods may not reach other machines"
  fi
}

# --- crictl --------------------------------------------------------------------------------------------------------

configure_crictl() {
  find_runtime
  if [ -e "$ROOT/etc/crictl.yaml" ] && ! is_ours /etc/crictl.yaml; then
    have "crictl configuration, left alone: /etc/crictl.yaml"
    grep -q "$SOCKET" "$ROOT/etc/crictl.yaml" || note "/etc/crictl.yaml names another socket: crictl -r unix://$SOCKET shows the pods of this one"
    return
  fi
  place_file /etc/crictl.yaml "runtime-endpoint: unix://$SOCKET
image-endpoint: unix://$SOCKET
timeout: 10" keep "crictl configuration"
}

# --- pod network ---------------------------------------------------------------------------------------------------

configure_network() {
  local found
  CNI_CONF_DIR=$(config_value cni conf_dir)
  CNI_CONF_DIR=${CNI_CONF_DIR:-/etc/cni/net.d}
  found=$(find "$ROOT$CNI_CONF_DIR" -maxdepth 1 \( -name '*.conf' -o -name '*.conflist' -o -name '*.json' \) 2>/dev/null | sort |
    grep -v '/10-edgelet\.conflist$' | head -n 1 || true)
  if [ -n "$found" ]; then
    have "pod network, left alone: ${found#"$ROOT"}"
    if [ -e "$ROOT$CNI_CONF_DIR/10-edgelet.conflist" ]; then note "$CNI_CONF_DIR has two networks: containerd takes the first by name"; fi
    return
  fi
  choose_pod_cidr
  place_plugins
  place_file "$CNI_CONF_DIR/10-edgelet.conflist" "$(render_network)" keep "pod network ($POD_CIDR on bridge $BRIDGE)"
}

choose_pod_cidr() {
  local range current
  current=$(sed -n 's/.*"subnet": "\([^"]*\)".*/\1/p' "$ROOT$CNI_CONF_DIR/10-edgelet.conflist" 2>/dev/null || true)
  if [ -n "$POD_CIDR" ]; then
    if is_routed "$POD_CIDR"; then fail "--pod-cidr $POD_CIDR is already routed on this machine: $(routes_of "$POD_CIDR")"; fi
    return
  fi
  for range in ${current:-10.88.0.0/16 10.125.0.0/16 10.188.0.0/16 172.29.0.0/16}; do
    if ! is_routed "$range"; then
      POD_CIDR=$range
      return
    fi
  done
  fail "the ranges tried for the pod network are all routed on this machine: choose one with --pod-cidr"
}

# Routes that lie in a range, by its first octets: enough for the private ranges in use.
routes_of() {
  local octets=2
  if [ "${1#*/}" -lt 16 ]; then octets=1; elif [ "${1#*/}" -ge 24 ]; then octets=3; fi
  ip -4 route show 2>/dev/null | grep -v "dev $BRIDGE" | grep "^$(printf '%s' "${1%/*}" | cut -d. -f1-$octets | sed 's/\./\\./g')\." | head -n 1 || true
}

is_routed() { [ -z "$STAGING" ] && [ -n "$(routes_of "$1")" ]; }

# Our own two, which call static and host-local, and bandwidth: for pods whose address or bandwidth is asked for.
place_plugins() {
  local name
  for name in edgelet-ipam edgelet-bandwidth; do
    if is_usable "$name"; then place_file "$CNI_DIR/$name" "$(cat "$SCRIPTS/cni/$name")" replace "CNI plugin" 0755; fi
  done
}

is_usable() { # PLUGIN: it is here, or will be; ours: those that it calls are
  case $1 in
    edgelet-ipam) is_usable static ;;
    edgelet-bandwidth) is_usable bandwidth ;;
    *) [ -n "$STAGING" ] || [ ! -d "$CNI_DIR" ] || [ -x "$CNI_DIR/$1" ] ;;
  esac
}

# CNI 0.4.0 is what every plugin release in the field speaks. "firewall" lets pod traffic pass where another program (Docker)
# has set the FORWARD chain to drop.
render_network() {
  local more='' ipam=host-local
  if is_usable edgelet-ipam; then ipam=edgelet-ipam; fi
  if is_usable firewall; then more=$',\n    {"type": "firewall"}'; fi
  if is_usable edgelet-bandwidth; then more+=$',\n    {"type": "edgelet-bandwidth", "capabilities": {"bandwidth": true}}'; fi
  printf '%s' "{
  \"cniVersion\": \"0.4.0\",
  \"name\": \"edgelet\",
  \"plugins\": [
    {
      \"type\": \"bridge\",
      \"bridge\": \"$BRIDGE\",
      \"isGateway\": true,
      \"ipMasq\": true,
      \"hairpinMode\": true,
      \"ipam\": {
        \"type\": \"$ipam\",
        \"ranges\": [[{\"subnet\": \"$POD_CIDR\"}]],
        \"routes\": [{\"dst\": \"0.0.0.0/0\"}]
      }
    },
    {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}$more
  ]
}"
}

# --- containerd ----------------------------------------------------------------------------------------------------

configure_containerd() {
  local faults wanted
  wanted=$(render_containerd_config)
  if [ ! -e "$ROOT$CONFIG" ] || is_ours "$CONFIG"; then
    place_file "$CONFIG" "$wanted" keep "containerd configuration"
  elif ! has_command containerd; then
    note "$CONFIG exists: whether it works is looked at once containerd is installed"
    return
  else
    faults=$(config_faults)
    if [ -n "$faults" ]; then
      while read -r fault; do note "$CONFIG can't run pods here: $fault"; done <<<"$faults"
      [ "$CONFIG" = "$DEFAULT_CONFIG" ] || fail "the containerd that runs as process $RUNNING_PID uses $CONFIG: correct it there and restart it"
      place_file "$CONFIG" "$wanted" replace "containerd configuration"
    elif came_with_our_package; then
      place_file "$CONFIG" "$wanted" replace "containerd configuration" # a package's example, nobody's decision
    else
      have "containerd configuration, works, left alone: $CONFIG"
      if [ -n "$(made file "$CONFIG")" ]; then place_file "$CONFIG" "$wanted" keep "containerd configuration"; fi
      note_cgroup_driver
      return
    fi
  fi
  case $PLACED in written | replaced) CONFIG_CHANGED=yes ;; esac
  if [ -z "$DRY_RUN" ]; then load_effective_config; fi
}

came_with_our_package() { # this script installed containerd, and has not yet written a configuration
  [ -z "$(made file "$CONFIG")" ] && [ -n "$(made package | cut -f1 | grep -E '^containerd(\.io)?(:|$)' || true)" ]
}

note_cgroup_driver() {
  local systemd name
  name=$(config_value containerd default_runtime_name)
  [ "$OCI_RUNTIME" = runc ] || [ "${name:-runc}" = "$OCI_RUNTIME" ] ||
    note "$CONFIG keeps ${name:-runc}: for $OCI_RUNTIME set default_runtime_name there, and a runtime of that name with BinaryName"
  systemd=$(config_value runtimes.runc.options SystemdCgroup)
  if [ "$INIT" = systemd ] && [ "$systemd" != true ]; then
    note "$CONFIG keeps runc's cgroupfs driver although systemd runs here: SystemdCgroup = true is the safer choice"
  fi
}

render_containerd_config() {
  local cri images runtimes systemd=false
  if [ "$CGROUP_DRIVER" = systemd ]; then systemd=true; fi
  printf '# Written by edgelet'\''s install-containerd.sh. Changed by hand, it is left alone from then on.\n'
  if [ "$CONTAINERD_MAJOR" -ge 2 ]; then
    cri='plugins."io.containerd.cri.v1.runtime"' images='plugins."io.containerd.cri.v1.images"'
    printf 'version = 3\n\n[grpc]\n  address = "%s"\n\n' "$SOCKET"
    printf '[%s]\n' "$images"
    print_snapshotter
    printf '[%s.pinned_images]\n  sandbox = "%s"\n' "$images" "$SANDBOX_IMAGE"
    printf '[%s.registry]\n  config_path = "/etc/containerd/certs.d"\n\n' "$images"
  else
    cri='plugins."io.containerd.grpc.v1.cri"'
    printf 'version = 2\n\n[grpc]\n  address = "%s"\n\n' "$SOCKET"
  fi
  printf '[%s]\n' "$cri"
  if [ "$CONTAINERD_MAJOR" -lt 2 ]; then printf '  sandbox_image = "%s"\n' "$SANDBOX_IMAGE"; fi
  if [ -n "$RESTRICT_OOM" ]; then printf '  restrict_oom_score_adj = true\n'; fi
  if [ "$CONTAINERD_MAJOR" -ge 2 ] && [ "$OCI_RUNTIME" != runc ]; then
    printf '[%s.containerd]\n  default_runtime_name = "%s"\n' "$cri" "$OCI_RUNTIME"
  fi
  printf '[%s.cni]\n' "$cri"
  if [ "$CONTAINERD_MAJOR" -lt 2 ] || [ "$CONTAINERD_MAJOR.$CONTAINERD_MINOR" = 2.0 ]; then
    printf '  bin_dir = "%s"\n' "$CNI_DIR"
  else
    printf '  bin_dirs = ["%s"]\n' "$CNI_DIR"
  fi
  printf '  conf_dir = "%s"\n' "$CNI_CONF_DIR"
  if [ "$CONTAINERD_MAJOR" -lt 2 ]; then
    printf '[%s.registry]\n  config_path = "/etc/containerd/certs.d"\n' "$cri"
    printf '[%s.containerd]\n  default_runtime_name = "%s"\n' "$cri" "$OCI_RUNTIME"
    print_snapshotter
  fi
  # containerd's default for this is below /opt, which is not its own
  printf '[plugins."io.containerd.internal.v1.opt"]\n  path = "/var/lib/containerd/opt"\n'
  runtimes=$cri.containerd.runtimes.runc
  printf '[%s]\n  runtime_type = "io.containerd.runc.v2"\n[%s.options]\n  SystemdCgroup = %s\n' "$runtimes" "$runtimes" "$systemd"
  if [ "$OCI_RUNTIME" != runc ]; then # by runc's shim; runc itself stays for a RuntimeClass whose handler is runc
    runtimes=$cri.containerd.runtimes.$OCI_RUNTIME
    printf '[%s]\n  runtime_type = "io.containerd.runc.v2"\n[%s.options]\n  BinaryName = "%s"\n  SystemdCgroup = %s\n' \
      "$runtimes" "$runtimes" "$OCI_RUNTIME" "$systemd"
  fi
}

print_snapshotter() { # overlayfs needs kernel support, and can't lie on another overlayfs
  if [ -n "$STAGING" ]; then return; fi
  if ! grep -qw overlay /proc/filesystems || [ "$(stat -fc %T "$(existing_parent /var/lib/containerd)")" = overlayfs ]; then
    printf '  snapshotter = "native"\n'
  fi
}

existing_parent() {
  local path=$1
  while [ ! -e "$path" ]; do path=${path%/*}; done
  printf '%s\n' "${path:-/}"
}

# One line for each reason why pods can't run with the configuration as it is.
config_faults() {
  local disabled dir usable=''
  if [ -z "$EFFECTIVE" ]; then
    printf 'containerd does not accept it: %s\n' "$EFFECTIVE_ERROR"
    return
  fi
  disabled=$(toml_value '' disabled_plugins)
  case $disabled in
    *'"cri"'* | *'"io.containerd.grpc.v1.cri"'* | *'"io.containerd.cri.v1.runtime"'* | *'"io.containerd.cri.v1.images"'*)
      printf 'its CRI plugin is disabled (disabled_plugins = %s)\n' "$disabled" ;;
  esac
  if [ -n "$RESTRICT_OOM" ] && [ "$(config_value '' restrict_oom_score_adj)" != true ]; then
    printf 'restrict_oom_score_adj is not set, and this machine has no CAP_SYS_RESOURCE\n'
  fi
  for dir in $(config_value cni bin_dir; config_value cni bin_dirs | tr -d '[]",'); do
    if [ -x "$ROOT$dir/bridge" ] || [ -x "$ROOT$dir/loopback" ]; then usable=yes; fi
  done
  if [ -z "$usable" ] && [ -z "$DRY_RUN$STAGING" ]; then
    printf 'no CNI plugins in the folder it names; they are in %s\n' "$CNI_DIR"
  fi
}

# --- containerd's own view of a configuration ------------------------------------------------------------------------

EFFECTIVE='' EFFECTIVE_ERROR=''

load_effective_config() { # what containerd makes of CONFIG, defaults filled in
  EFFECTIVE='' EFFECTIVE_ERROR='containerd is not installed'
  if ! has_command containerd || [ ! -e "$ROOT$CONFIG" ]; then return 0; fi
  if ! EFFECTIVE=$(containerd --config "$ROOT$CONFIG" config dump 2>/dev/null); then
    EFFECTIVE_ERROR=$(containerd --config "$ROOT$CONFIG" config dump 2>&1 | tail -n 1 || true)
    EFFECTIVE=''
  fi
}

toml_value() { # TABLE KEY: from the dump, which has one key a line and every table spelt out
  awk -v table="$1" -v key="$2" '
    { gsub(/\047/, "\"") }
    /^[ \t]*\[/ { name = $0; gsub(/^[ \t]*\[|\][ \t]*$/, "", name); next }
    name == table && $1 == key && $2 == "=" { sub(/^[^=]*=[ \t]*/, ""); gsub(/^"|"$/, ""); print; exit }' <<<"$EFFECTIVE"
}

config_value() { # TABLE KEY below the CRI runtime plugin, whichever generation wrote it
  local cri table=$1
  case $table in runtimes.*) table=containerd.$table ;; esac
  for cri in 'plugins."io.containerd.cri.v1.runtime"' 'plugins."io.containerd.grpc.v1.cri"'; do
    toml_value "$cri${table:+.}$table" "$2"
  done | head -n 1
}

sandbox_image_in_use() {
  local name
  name=$(toml_value 'plugins."io.containerd.cri.v1.images".pinned_images' sandbox)
  if [ -z "$name" ]; then name=$(config_value '' sandbox_image); fi
  printf '%s\n' "${name:-$SANDBOX_IMAGE}"
}
