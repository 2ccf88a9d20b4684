# shellcheck shell=bash disable=SC2154,SC2034
# Get containerd, runc (or crun, only from the distribution), the CNI plugins and crictl onto the machine: what is there stays; else the distribution's package;
# else the upstream release, pinned by version and SHA-256; else a build from pinned Go modules.

CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/edgelet
CNI_DIRS='/opt/cni/bin /usr/lib/cni /usr/libexec/cni'
CNI_PLUGINS='bridge host-local static loopback portmap firewall bandwidth'

# Upstream releases: URL with VERSION and ARCH to fill in, version, SHA-256 for amd64 and for arm64. Of containerd the static
# one: the other needs a newer glibc than RHEL 9 has.
declare -A RELEASE_URL=(
  [containerd]=https://github.com/containerd/containerd/releases/download/vVERSION/containerd-static-VERSION-linux-ARCH.tar.gz
  [runc]=https://github.com/opencontainers/runc/releases/download/vVERSION/runc.ARCH
  [cni]=https://github.com/containernetworking/plugins/releases/download/vVERSION/cni-plugins-linux-ARCH-vVERSION.tgz
  [crictl]=https://github.com/kubernetes-sigs/cri-tools/releases/download/vVERSION/crictl-vVERSION-linux-ARCH.tar.gz
)
declare -A RELEASE_VERSION=([containerd]=2.2.1 [runc]=1.3.4 [cni]=1.8.0 [crictl]=1.35.0)
declare -A RELEASE_SHA256=(
  [containerd-amd64]=af3e82bac6abed58d45956c653244aa2be583359a9753614278ef652012f2883
  [containerd-arm64]=6b3b011ee388638eace05ac3be0eb32dfb4a43086695c29d06e997febd336f2e
  [runc-amd64]=5966ca40b6187b30e33bfc299c5f1fe72e8c1aa01cf3fefdadf391668f47f103
  [runc-arm64]=d6dcab36d1b6af1b72c7f0662e5fcf446a291271ba6006532b95c4144e19d428
  [cni-amd64]=ab3bda535f9d90766cccc90d3dddb5482003dd744d7f22bcf98186bf8eea8be6
  [cni-arm64]=57ce466fc3b79db1f19b8f4c63e07a1112306efa53c94fe810a2150dd9e07ddb
  [crictl-amd64]=2e141e5b22cb189c40365a11807d69b76b9b3caced89fac2f4ec879408ce2177
  [crictl-arm64]=519071de89b64c43e2a1661bb5489c6c3fd5e9e5fcef75e50e542b0c891f1118
)

# Go modules: MODULE@VERSION, then the packages to build. runc needs a C compiler and libseccomp's headers beside Go.
declare -A GO_MODULE=(
  [containerd]=github.com/containerd/containerd/v2@v2.4.2
  [runc]=github.com/opencontainers/runc@v1.3.4
  [cni]=github.com/containernetworking/plugins@v1.9.1
  [crictl]=sigs.k8s.io/cri-tools@v1.37.0
)
declare -A GO_PACKAGES=(
  [containerd]='cmd/containerd cmd/containerd-shim-runc-v2 cmd/ctr'
  [runc]=.
  [cni]='plugins/main/bridge plugins/main/loopback plugins/ipam/host-local plugins/ipam/static plugins/meta/portmap plugins/meta/firewall
    plugins/meta/bandwidth'
  [crictl]=cmd/crictl
)

# Where binaries go that don't come from a package.
declare -A TARGET=([containerd]=/usr/local/bin [runc]=/usr/local/sbin [cni]=/opt/cni/bin [crictl]=/usr/local/bin)

provide_software() {
  local missing=() part
  for part in containerd "$OCI_RUNTIME" cni crictl iptables selinux; do
    if is_installed "$part"; then have_software "$part"; else missing+=("$part"); fi
  done
  if [ -z "$NO_INSTALL$STAGING" ] && [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}"
    for part in "${missing[@]}"; do
      if [ -n "$DRY_RUN" ] && [ -n "$(package_of "$part")" ]; then continue; fi
      if ! is_installed "$part"; then install_from_upstream "$part"; fi
    done
  elif [ -z "$STAGING" ] && [ ${#missing[@]} -gt 0 ]; then
    fail "--no-install, but not here: ${missing[*]}"
  fi
  learn_cni_dir
  learn_containerd_version
}

is_installed() {
  case $1 in
    cni) [ -n "$(where_is cni)" ] ;;
    # containers need the policy package where SELinux is on; elsewhere there is nothing to have
    selinux) [ ! -d /sys/fs/selinux ] || [ "$PACKAGES" = apt ] || [ "$PACKAGES" = none ] || rpm -q --quiet container-selinux ;;
    containerd) has_command containerd && has_command ctr ;;
    *) has_command "$1" ;;
  esac
}

have_software() { [ "$1" = selinux ] || have "$1: $(where_is "$1")"; }

where_is() {
  local dir
  if [ "$1" != cni ]; then
    command -v "$1"
    return
  fi
  for dir in $CNI_DIRS; do
    if [ -x "$ROOT$dir/bridge" ] && [ -x "$ROOT$dir/host-local" ] && [ -x "$ROOT$dir/loopback" ] && [ -x "$ROOT$dir/portmap" ]; then
      printf '%s\n' "$dir"
      return
    fi
  done
}

learn_cni_dir() {
  CNI_DIR=$(where_is cni)
  if [ -z "$CNI_DIR" ]; then # only in a dry run or when staging: where they would be
    case $PACKAGES in apt) CNI_DIR=/usr/lib/cni ;; dnf | yum) CNI_DIR=/usr/libexec/cni ;; *) CNI_DIR=/opt/cni/bin ;; esac
  fi
}

learn_containerd_version() { # MAJOR and MINOR decide how the configuration is written
  local text=''
  if has_command containerd; then
    text=$(containerd --version | awk '{ print $3 }')
  elif [ "$PACKAGES" = apt ]; then
    text=$(apt_candidate containerd)
  fi
  [[ ${text#v} =~ ^([0-9]+)\.([0-9]+) ]] || [[ ${RELEASE_VERSION[containerd]} =~ ^([0-9]+)\.([0-9]+) ]]
  CONTAINERD_MAJOR=${BASH_REMATCH[1]} CONTAINERD_MINOR=${BASH_REMATCH[2]}
}

# --- the distribution ----------------------------------------------------------------------------------------------

apt_candidate() { apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'; }

package_of() { # PART: the name of the distribution's package, empty where it has none
  local name
  case $1 in
    cni) name=containernetworking-plugins ;;
    selinux) name=container-selinux ;;
    crictl) name=cri-tools ;;
    iptables) if [ "$PACKAGES" = apt ]; then name=iptables; else name=iptables-nft; fi ;;
    *) name=$1 ;;
  esac
  case $PACKAGES in
    apt) [ -z "$(apt_candidate "$name")" ] || printf '%s\n' "$name" ;;
    dnf | yum) if "$PACKAGES" -q list "$name" >/dev/null 2>&1; then printf '%s\n' "$name"; fi ;;
  esac
}

installed_packages() {
  case $PACKAGES in
    apt) dpkg-query -W -f '${Package}:${Architecture} ${db:Status-Abbrev}\n' | awk '$2 == "ii" { print $1 }' ;;
    dnf | yum) rpm -qa --qf '%{NAME}\n' ;;
  esac | sort -u
}

refresh_package_lists() {
  [ "$PACKAGES" = apt ] || return 0
  if [ -n "$DRY_RUN" ]; then
    say 'would  run: apt-get update'
  else
    apt-get update -qq -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 || note "apt-get update failed: going on with the package lists that are here"
  fi
}

install_packages() { # PART...: those that the distribution has, in one go; new packages are remembered, with their dependencies
  local names=() part name before
  refresh_package_lists
  for part in "$@"; do
    name=$(package_of "$part")
    if [ -n "$name" ]; then names+=("$name"); else note "$part: no package in this distribution's repositories"; fi
  done
  [ ${#names[@]} -gt 0 ] || return 0
  did "install packages: ${names[*]}"
  [ -z "$DRY_RUN" ] || return 0
  before=$(installed_packages)
  case $PACKAGES in
    apt) DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "${names[@]}" >/dev/null ;;
    *) "$PACKAGES" -q -y install --setopt=install_weak_deps=False "${names[@]}" ;;
  esac || note "the package manager failed for: ${names[*]}"
  hash -r
  while read -r name; do remember package "$name"; done < <(comm -13 <(printf '%s\n' "$before") <(installed_packages))
}

# --- upstream ------------------------------------------------------------------------------------------------------

# The two functions after this one run as conditions, where bash's errexit is off: they return each failure themselves.
install_from_upstream() { # PART
  local part=$1 dir=$CACHE/$1-$ARCH
  [ -n "${RELEASE_URL[$part]:-}" ] || fail "$part is missing and this distribution's repositories don't have it: install it by hand"
  if [ -n "$DRY_RUN" ]; then
    did "install $part to ${TARGET[$part]}: release ${RELEASE_VERSION[$part]}, else built from Go module ${GO_MODULE[$part]}"
    return
  fi
  fetch_release "$part" "$dir" || build_from_go "$part" "$dir" ||
    fail "can't get $part: no package, no download ($RELEASE_FAULT), no Go build ($GO_FAULT)"
  install_binaries "$part" "$dir"
}

UPSTREAM_UNREACHABLE=''

fetch_release() { # PART DIR: leaves the binaries in DIR/release-VERSION and that path in BUILT
  local part=$1 version=${RELEASE_VERSION[$1]} url file sum
  BUILT=$2/release-$version RELEASE_FAULT='--offline'
  if [ -e "$BUILT/.complete" ]; then return 0; fi
  if [ -n "$OFFLINE" ]; then return 1; fi
  url=${RELEASE_URL[$part]//VERSION/$version}
  url=${url//ARCH/$ARCH}
  work_dir
  file=$WORK/${url##*/}
  RELEASE_FAULT="${url%%/releases/*} can't be reached"
  if [ -n "$UPSTREAM_UNREACHABLE" ]; then return 1; fi # the first try has already waited for it
  if ! download "$url" "$file"; then
    UPSTREAM_UNREACHABLE=yes
    return 1
  fi
  sum=$(sha_of "$file")
  [ "$sum" = "${RELEASE_SHA256[$part-$ARCH]}" ] ||
    fail "$url: SHA-256 is $sum, expected ${RELEASE_SHA256[$part-$ARCH]}: not installed"
  RELEASE_FAULT="${url##*/} can't be unpacked into $BUILT"
  rm -rf "$BUILT" && mkdir -p "$BUILT" || return 1
  case $part in
    runc) install -m 0755 "$file" "$BUILT/runc" ;;
    containerd) tar -xzf "$file" --no-same-owner -C "$BUILT" --strip-components=1 ;;
    *) tar -xzf "$file" --no-same-owner -C "$BUILT" ;;
  esac && touch "$BUILT/.complete"
}

download() { # URL FILE: gives up on an unreachable host within seconds
  if has_command curl; then
    curl --fail --silent --location --connect-timeout 5 --speed-limit 1000 --speed-time 20 --max-time 900 --output "$2" "$1"
  elif has_command wget; then
    wget --quiet --tries=1 --connect-timeout=5 --dns-timeout=5 --read-timeout=20 --output-document="$2" "$1"
  else
    return 1
  fi
}

build_from_go() { # PART DIR
  local part=$1 module=${GO_MODULE[$1]%@*} version=${GO_MODULE[$1]#*@} package cgo=0 tags=''
  local -x GOFLAGS="${GOFLAGS:-} -buildvcs=false"
  BUILT=$2/go-$version
  if [ -e "$BUILT/.complete" ]; then return 0; fi
  GO_FAULT='no Go toolchain here'
  has_command go || return 1
  if [ "$part" = runc ]; then
    GO_FAULT="runc needs a C compiler and libseccomp's headers (gcc, pkg-config, libseccomp-dev)"
    has_command gcc && has_command pkg-config && pkg-config --exists libseccomp || return 1
    cgo=1 tags=seccomp
  fi
  did "build $part from ${GO_MODULE[$part]} (some minutes, once)"
  work_dir
  rm -rf "$BUILT" "$WORK/go" && mkdir -p "$BUILT" "$WORK/go" || return 1
  for package in ${GO_PACKAGES[$part]}; do
    GO_FAULT="building $package of $module@$version failed"
    # A scratch module rather than "go install": the latter refuses modules that have replace lines.
    if [ "$package" = . ]; then package=$module; else package=$module/$package; fi
    if ! (cd "$WORK/go" && { [ -e go.mod ] || go mod init edgelet.local/tools; } && go get "$package@$version" &&
      CGO_ENABLED=$cgo go build -tags "$tags" -ldflags '-s -w' -o "$BUILT/" "$package") >"$WORK/go.log" 2>&1; then
      tail -n 5 "$WORK/go.log" >&2
      return 1
    fi
  done
  touch "$BUILT/.complete"
}

install_binaries() { # PART DIR (uses BUILT)
  local part=$1 file name target
  did "install $part to ${TARGET[$part]} from $BUILT"
  while read -r file; do
    name=${file##*/}
    target=${TARGET[$part]}/$name
    if [ -e "$target" ]; then continue; fi
    make_folder "${TARGET[$part]}"
    install -m 0755 "$file" "$target"
    if has_command restorecon; then restorecon -F "$target" || true; fi
    remember file "$target" "$(sha_of "$target")"
  done < <(find "$BUILT" -maxdepth 1 -type f -perm -u+x ! -name '.*' | sort)
  hash -r
  is_installed "$part" || fail "$part was put into ${TARGET[$part]}, which is not in PATH: $PATH"
  if [ "$part" = containerd ]; then place_containerd_unit; fi
}

place_containerd_unit() { # the upstream archive has none
  [ "$INIT" = systemd ] || return 0
  place_file /etc/systemd/system/containerd.service "[Unit]
Description=containerd container runtime
After=network.target local-fs.target

[Service]
Type=notify
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/containerd
Restart=always
RestartSec=5
KillMode=process
Delegate=yes
OOMScoreAdjust=-999
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target" keep "systemd unit"
  run systemctl daemon-reload
}
