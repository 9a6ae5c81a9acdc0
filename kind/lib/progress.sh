# shellcheck shell=bash
# Says what is being done, how long it usually takes, and how long it took.

STEP=0

# step USUAL WHAT COMMAND... runs COMMAND with its output in a log file, tells
# every 20 seconds that it is still at it, and shows the log's end on failure.
# COMMAND runs in a subshell, so it cannot change the caller's variables; and
# in the background, because in the foreground of a `||` bash would ignore
# `set -e` inside it. For the same reason step is never part of a `||` itself.
step() {
  local usual=$1 what=$2
  shift 2
  STEP=$((STEP + 1))
  local log started=$SECONDS status=0 worker
  mkdir -p "$LOG_DIR"
  log=$LOG_DIR/$(printf '%02d' "$STEP")-$1.log
  echo "==> $what (usually $usual)"
  (
    set -x
    "$@"
  ) >"$log" 2>&1 </dev/null &
  worker=$!
  watch_step "$worker" "$started" "$log"
  wait "$worker" || status=$?
  if ((status != 0)); then
    tail -n 40 "$log" >&2
    die "$what: failed after $((SECONDS - started)) s; the whole log is in $log"
  fi
  echo "    done in $((SECONDS - started)) s"
}

watch_step() {
  local worker=$1 started=$2 log=$3 told=0 spent
  while kill -0 "$worker" 2>/dev/null; do
    sleep 0.2
    spent=$((SECONDS - started))
    if ((spent >= told + 20)); then
      told=$spent
      echo "    ... $spent s: $(tail -n 1 "$log" | tr -d '\r' | cut -c1-90)"
    fi
  done
}

say() { echo "    $*"; }

die() {
  echo "!!! $*" >&2
  exit 1
}
