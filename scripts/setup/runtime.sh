# shellcheck shell=bash disable=SC2154,SC2034
# The running containerd: find it, start it (systemd, or by ourselves where there is none), restart only what we may restart.

export CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=true # ctr would print them at each call, among our lines
PID_FILE=/run/edgelet-setup/containerd.pid
LOG_FILE=/var/log/containerd.log
RUNNING_PID=''
CONFIG=$DEFAULT_CONFIG

cri() { crictl --runtime-endpoint "unix://$SOCKET" --image-endpoint "unix://$SOCKET" "$@"; }
containers() { ctr --address "$SOCKET" --namespace k8s.io "$@"; }

# Which configuration counts: that of the containerd that listens on the socket, else the one in /etc/containerd.
find_runtime() {
  local address
  CONFIG=$DEFAULT_CONFIG
  load_effective_config
  address=$(toml_value grpc address)
  SOCKET=${address:-$SOCKET}
  if [ -n "$STAGING" ]; then return; fi
  find_running_containerd
  if [ -n "$RUNNING_PID" ] && [ "$CONFIG" != "$DEFAULT_CONFIG" ]; then
    note "containerd runs as process $RUNNING_PID with $CONFIG"
    load_effective_config
  fi
}

find_running_containerd() { # RUNNING_PID and CONFIG of the process that serves SOCKET; k3s and Docker run others beside it
  local proc arguments config address
  RUNNING_PID=''
  for proc in /proc/[0-9]*; do
    if [ "$(cat "$proc/comm" 2>/dev/null)" != containerd ] || ! [ "$proc/root/" -ef / ]; then continue; fi
    mapfile -d '' -t arguments 2>/dev/null <"$proc/cmdline" || continue
    config=$(flag_value config c "${arguments[@]}") address=$(flag_value address a "${arguments[@]}")
    config=${config:-$DEFAULT_CONFIG}
    if [ -z "$address" ]; then
      CONFIG=$config
      load_effective_config
      address=$(toml_value grpc address)
    fi
    if [ "${address:-/run/containerd/containerd.sock}" = "$SOCKET" ]; then
      RUNNING_PID=${proc#/proc/} CONFIG=$config
      return
    fi
  done
  CONFIG=$DEFAULT_CONFIG
  load_effective_config
}

flag_value() { # LONG SHORT ARGUMENT...: -c X, --config X, --config=X
  local long=$1 short=$2
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      "-$short" | "--$long" | "-$long") printf '%s\n' "${2:-}"; return ;;
      "--$long="* | "-$short="* | "-$long="*) printf '%s\n' "${1#*=}"; return ;;
    esac
    shift
  done
}

# The configuration was written after the process began, by this run or by one that could not restart it.
runs_old_config() {
  local boot ticks
  if [ -n "$CONFIG_CHANGED" ]; then return 0; fi
  is_ours "$CONFIG" || return 1
  boot=$(awk '$1 == "btime" { print $2 }' /proc/stat)
  ticks=$(sed 's/.*) //' "/proc/$RUNNING_PID/stat" | cut -d' ' -f20)
  [ "$(stat -c %Y "$CONFIG")" -gt $((boot + ticks / $(getconf CLK_TCK) + 1)) ]
}

is_answering() { timeout 5 ctr --address "$SOCKET" version >/dev/null 2>&1; }

started_by_us() { # the process in our pid file, if it still is that containerd
  local pid
  pid=$(cat "$PID_FILE" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = containerd ] && printf '%s\n' "$pid"
}

ensure_containerd_runs() {
  if [ "$INIT" = systemd ] && { [ -z "$RUNNING_PID" ] || is_systemd_unit; }; then
    run_by_systemd
  else
    run_by_ourselves
  fi
  if [ -z "$DRY_RUN" ]; then wait_until_answering; fi
}

is_systemd_unit() { systemctl --quiet is-active containerd.service; }

run_by_systemd() {
  if ! systemctl --quiet is-enabled containerd.service 2>/dev/null; then
    run systemctl enable --quiet containerd.service
    remember unit containerd.service
  fi
  if [ -z "$RUNNING_PID" ]; then
    run systemctl start containerd.service
    did "start containerd.service"
  elif runs_old_config; then
    run systemctl restart containerd.service
    did "restart containerd.service for its new configuration (containers keep running)"
  else
    have "containerd.service runs"
  fi
}

run_by_ourselves() {
  local ours
  ours=$(started_by_us || true)
  if [ -n "$RUNNING_PID" ] && ! runs_old_config; then
    have "containerd runs as process $RUNNING_PID"
    return
  elif [ -n "$RUNNING_PID" ] && [ "$ours" != "$RUNNING_PID" ]; then
    if [ -n "$DRY_RUN" ]; then
      note "containerd process $RUNNING_PID would have to be restarted by whoever started it"
      return
    fi
    fail "containerd runs as process $RUNNING_PID, which this script did not start: restart it so that it reads $CONFIG, then run this again"
  elif [ -n "$RUNNING_PID" ]; then
    did "stop containerd process $RUNNING_PID for its new configuration (containers keep running)"
    if [ -z "$DRY_RUN" ]; then stop_process "$RUNNING_PID"; fi
  fi
  did "start containerd in the background, log in $LOG_FILE"
  note "no systemd here: containerd does not come back by itself after a reboot, run this script again then"
  if [ -n "$DRY_RUN" ]; then return; fi
  mkdir -p "${PID_FILE%/*}" "${LOG_FILE%/*}"
  ulimit -n 1048576 2>/dev/null || true
  nohup setsid containerd --config "$CONFIG" >>"$LOG_FILE" 2>&1 </dev/null 9>&- &
  RUNNING_PID=$!
  printf '%s\n' "$RUNNING_PID" >"$PID_FILE"
  remember process containerd "$PID_FILE"
}

wait_until_answering() {
  local tries
  for ((tries = 0; tries < 150; tries++)); do
    if is_answering; then return; fi
    if [ "$INIT" != systemd ] && ! kill -0 "$RUNNING_PID" 2>/dev/null; then
      fail "containerd ended at once: $(grep -E 'level=(fatal|error)|^containerd:' "$LOG_FILE" | tail -n 1)"
    fi
    sleep 0.1
  done
  fail "containerd does not answer on $SOCKET: see $(if [ "$INIT" = systemd ]; then echo 'journalctl -u containerd'; else echo "$LOG_FILE"; fi)"
}

stop_process() { # PID
  local tries
  kill "$1" 2>/dev/null || return 0
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  fail "process $1 does not end after SIGTERM"
}

check_result() {
  local state='' tries
  if [ -n "$DRY_RUN" ]; then return; fi
  for ((tries = 0; tries < 20; tries++)); do
    state=$(cri info -o go-template --template '{{range .status.conditions}}{{.type}}={{.status}} {{end}}' 2>&1 | tail -n 1 || true)
    case $state in
      *RuntimeReady=true*NetworkReady=true* | *NetworkReady=true*RuntimeReady=true*)
        say "ready  containerd $(ctr --address "$SOCKET" version | awk '/^Server:/ { s = 1 } s && $1 == "Version:" { print $2; exit }') on unix://$SOCKET"
        return
        ;;
    esac
    sleep 0.5
  done
  fail "containerd answers but can't run pods yet: ${state:-no answer from its CRI plugin} (see crictl info)"
}
