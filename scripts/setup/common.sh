# shellcheck shell=bash disable=SC2154,SC2034  # globals are shared with install-containerd.sh
# Talking to the person, changing files, and remembering what was made. Every change to the machine goes through here.

MADE=$ROOT/var/lib/edgelet-setup/made # one line for each thing made: KIND<TAB>NAME<TAB>DETAIL
NOW=$(date -u +%Y%m%dT%H%M%SZ)
CURRENT_STEP=''
WORK=''

say() { printf '%s\n' "$*"; }
have() { printf 'have   %s\n' "$*"; }
note() { printf 'note   %s\n' "$*"; }
did() { if [ -n "$DRY_RUN" ]; then printf 'would  %s\n' "$*"; else printf 'do     %s\n' "$*"; fi; }
fail() {
  printf 'install-containerd: error: %s\n' "$*" >&2
  CURRENT_STEP='' # said already
  exit 1
}
refuse() {
  printf 'install-containerd: error: %s\n' "$*" >&2
  CURRENT_STEP=''
  exit 2
}

step() { # WHAT FUNCTION: a failure that nothing explained is at least placed
  CURRENT_STEP=$1
  "$2"
  CURRENT_STEP=''
}

clean_up() {
  local code=$?
  if [ -n "$WORK" ]; then rm -rf "$WORK"; fi
  [ "$code" = 0 ] || [ -z "$CURRENT_STEP" ] ||
    printf 'install-containerd: error: stopped while %s; what was done so far is kept, run it again after fixing this\n' "$CURRENT_STEP" >&2
}
trap clean_up EXIT

work_dir() { # a private folder, gone at the end
  [ -n "$WORK" ] || WORK=$(mktemp -d)
}

# Run a command that changes the machine; --dry-run only shows it.
run() {
  if [ -n "$DRY_RUN" ]; then
    printf 'would  run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

has_command() { command -v "$1" >/dev/null 2>&1; }

take_lock() {
  [ -z "$DRY_RUN" ] || return 0
  mkdir -p "${MADE%/*}"
  exec 9>"${MADE%/*}/lock"
  flock -n 9 || fail "another run of this script holds ${MADE%/*}/lock: wait for it to end"
}

sha_of() { sha256sum "$1" | cut -d' ' -f1; }

# --- what was made -------------------------------------------------------------------------------------------------

made() { # KIND [NAME]: the remembered lines of that kind as NAME<TAB>DETAIL
  [ -e "$MADE" ] || return 0
  awk -F'\t' -v kind="$1" -v name="${2:-}" '$1 == kind && (name == "" || $2 == name) { print $2 "\t" $3 }' "$MADE"
}

forget() { # KIND NAME
  [ -e "$MADE" ] && [ -z "$DRY_RUN" ] || return 0
  awk -F'\t' -v kind="$1" -v name="$2" '!($1 == kind && $2 == name)' "$MADE" >"$MADE.new"
  mv "$MADE.new" "$MADE"
}

remember() { # KIND NAME [DETAIL]
  [ -z "$DRY_RUN" ] || return 0
  mkdir -p "${MADE%/*}"
  forget "$1" "$2"
  printf '%s\t%s\t%s\n' "$1" "$2" "${3:-}" >>"$MADE"
}

is_ours() { # PATH: this script wrote it, and nobody changed it since
  local detail
  detail=$(made file "$1" | cut -f2)
  [ -n "$detail" ] && [ -e "$ROOT$1" ] && [ "$detail" = "$(sha_of "$ROOT$1")" ]
}

# --- writing files -------------------------------------------------------------------------------------------------

PLACED='' # what the last place_file did: same, written, replaced, beside

make_folder() { # PATH: every folder that has to be made is remembered, so that undoing leaves those that were here
  if [ -d "$ROOT$1" ]; then return; fi
  make_folder "$(dirname "$1")"
  mkdir "$ROOT$1"
  remember folder "$1"
}

write_content() { # PATH CONTENT [MODE]: atomically, so that a power cut leaves the old file or the new one
  make_folder "$(dirname "$1")"
  printf '%s\n' "$2" >"$ROOT$1.edgelet-tmp"
  chmod "${3:-0644}" "$ROOT$1.edgelet-tmp"
  mv -f "$ROOT$1.edgelet-tmp" "$ROOT$1"
  remember file "$1" "$(sha_of "$ROOT$1")"
}

show_content() { printf '%s\n' "$1" | sed 's/^/         | /'; }

# Bring CONTENT to PATH. A file that we wrote is brought up to date. Anybody else's file is kept: with "replace" as a dated
# copy, with "keep" where it is, ours then lies beside it as PATH.edgelet-new.
place_file() { # PATH CONTENT keep|replace WHAT [MODE]
  local path=$1 content=$2 policy=$3 what=$4
  if [ ! -e "$ROOT$path" ]; then
    PLACED=written
    did "write $what: $path"
  elif [ "$(cat "$ROOT$path")" = "$content" ]; then
    PLACED=same
    have "$what: $path"
    return
  elif is_ours "$path"; then
    PLACED=written
    did "update $what: $path"
  elif [ "$policy" = replace ]; then
    PLACED=replaced
    did "replace $path, the previous one is kept as $path.bak-$NOW"
    if [ -z "$DRY_RUN" ]; then
      cp -a "$ROOT$path" "$ROOT$path.bak-$NOW"
      [ -n "$(made backup "$path")" ] || remember backup "$path" "$path.bak-$NOW" # the first is the owner's original
    fi
  else
    PLACED=beside
    note "$path was changed by someone: it stays, ours is kept beside it as $path.edgelet-new"
    path=$path.edgelet-new
  fi
  if [ -n "$DRY_RUN" ]; then show_content "$content"; else write_content "$path" "$content" "${5:-}"; fi
}
