# shellcheck shell=bash disable=SC2154,SC2034
# --uninstall: take back exactly what MADE remembers, in the reverse order of making, and say what stays.

uninstall() {
  if [ ! -s "$MADE" ]; then
    say "nothing to take back: this script made nothing on this machine"
    remove_memory
    return
  fi
  PACKAGES=none INIT='no systemd'
  if has_command dpkg; then PACKAGES=apt; elif has_command rpm; then PACKAGES=dnf; fi
  if [ -d "$ROOT/run/systemd/system" ]; then INIT=systemd; fi
  find_runtime
  refuse_while_pods_exist
  undo_images
  undo_process
  undo_files
  undo_backups
  undo_bridge
  undo_packages
  undo_folders
  forget_everything
}

# A pod that outlives its containerd or its network can't be removed by anyone.
refuse_while_pods_exist() {
  local count
  if [ -n "$STAGING" ] || ! is_answering; then return 0; fi
  count=$(containers containers ls -q | wc -l)
  if [ "$count" = 0 ] || ! pods_need_ours; then return 0; fi
  fail "$count containers still exist on this containerd: stop edgelet and remove them first (crictl rmp --all --force)"
}

pods_need_ours() { # the network, containerd itself, or what is below it
  [ -n "$(made process)$(made unit)$(made package)" ] || made file | grep -E '10-edgelet\.conflist|/(containerd|runc|bridge)\b' >/dev/null
}

undo_images() {
  local name
  if [ -n "$STAGING" ] || ! is_answering; then return 0; fi
  while IFS=$'\t' read -r name _; do
    did "remove image $name"
    if [ -z "$DRY_RUN" ]; then containers images rm "$name" >/dev/null 2>&1 || note "image $name was already gone"; fi
    forget image "$name"
  done < <(made image)
}

undo_process() {
  local pid unit
  while IFS=$'\t' read -r unit _; do
    run systemctl disable --quiet --now "$unit"
    forget unit "$unit"
  done < <(made unit)
  if [ -z "$(made process)" ]; then return 0; fi
  if pid=$(started_by_us); then
    did "stop containerd process $pid"
    if [ -z "$DRY_RUN" ]; then
      stop_process "$pid"
      unmount_leftovers
    fi
  fi
  run rm -f "$PID_FILE"
  forget process containerd
}

unmount_leftovers() { # containerd leaves temporary mounts of its own below its state folder
  local point
  while read -r point; do umount "$point" 2>/dev/null || true; done < <(awk '$2 ~ "^/run/containerd/" { print $2 }' /proc/self/mounts | sort -r)
}

undo_files() {
  local path detail
  while IFS=$'\t' read -r path detail; do
    if [ ! -e "$ROOT$path" ]; then
      note "$path was already gone"
    elif [ "$(sha_of "$ROOT$path")" != "$detail" ]; then
      note "stays: $path, changed since it was written"
    else
      did "remove $path"
      if [ -z "$DRY_RUN" ]; then rm -f "$ROOT$path"; fi
    fi
    forget file "$path"
  done < <(made file)
  if [ "$INIT" = systemd ] && [ -z "$STAGING" ]; then run systemctl daemon-reload; fi
}

undo_backups() {
  local path backup
  while IFS=$'\t' read -r path backup; do
    if [ -e "$ROOT$path" ] && [ -z "$DRY_RUN" ]; then
      note "stays: $backup, the original of $path"
    elif [ -e "$ROOT$backup" ]; then
      did "put back $path from $backup"
      if [ -z "$DRY_RUN" ]; then
        mkdir -p "$(dirname "$ROOT$path")"
        mv "$ROOT$backup" "$ROOT$path"
        if [ -z "$STAGING" ] && [ -z "$(made package | grep '^containerd' || true)" ] && is_answering; then
          note "containerd still runs with our $path: restart it"
        fi
      fi
    fi
    forget backup "$path"
  done < <(made backup)
}

undo_folders() { # the deepest first, and only empty ones
  local path
  while read -r path; do
    if [ -d "$ROOT$path" ] && [ -z "$DRY_RUN" ]; then rmdir --ignore-fail-on-non-empty "$ROOT$path"; fi
    forget folder "$path"
  done < <(made folder | cut -f1 | sort -r)
}

undo_packages() { # those that nothing else has come to need meanwhile; a package manager's own check decides
  local names=() left=() name progress=yes
  mapfile -t names < <(made package | cut -f1)
  if [ ${#names[@]} -eq 0 ]; then return 0; fi
  did "remove packages: ${names[*]}"
  if [ -n "$DRY_RUN" ]; then return 0; fi
  if ! remove_packages "${names[@]}"; then
    while [ -n "$progress" ] && [ ${#names[@]} -gt 0 ]; do
      progress='' left=()
      for name in "${names[@]}"; do
        if remove_packages "$name"; then progress=yes; else left+=("$name"); fi
      done
      names=("${left[@]}")
    done
    if [ ${#left[@]} -gt 0 ]; then note "stays: packages that others need now: ${left[*]}"; fi
  fi
  hash -r
}

remove_packages() {
  case $PACKAGES in
    apt) DEBIAN_FRONTEND=noninteractive dpkg --purge "$@" >/dev/null 2>&1 ;;
    dnf) rpm -e "$@" >/dev/null 2>&1 ;;
    *) return 1 ;;
  esac
}

undo_bridge() {
  if [ -n "$STAGING" ] || ! ip link show "$BRIDGE" >/dev/null 2>&1; then return 0; fi
  if [ -n "$(ip -o link show master "$BRIDGE")" ]; then
    note "stays: bridge $BRIDGE, still in use"
  else
    run ip link delete "$BRIDGE"
  fi
}

forget_everything() {
  local path
  for path in /var/lib/containerd /var/lib/cni "$LOG_FILE" "$CACHE"; do
    if [ -e "$ROOT$path" ]; then note "stays: $path (data; remove it by hand when nothing needs it)"; fi
  done
  note "stays until the next boot: kernel modules and settings, empty CNI-* firewall chains"
  if [ -n "$DRY_RUN" ]; then return 0; fi
  remove_memory
  say "done   everything that this script made is taken back"
}

remove_memory() {
  if [ -n "$DRY_RUN" ]; then return 0; fi
  rm -f "$MADE" "${MADE%/*}/lock"
  rmdir --ignore-fail-on-non-empty "${MADE%/*}"
}
