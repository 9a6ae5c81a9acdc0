# shellcheck shell=bash
# A docker engine that answers: installed, started, and able to run privileged
# containers also where CAP_SYS_RESOURCE is withheld.

DOCKERD_PID_FILE=$BUILD_DIR/dockerd.pid
NARROW_RUNTIME=/usr/local/sbin/holdfast-narrow-runtime
CAP_SYS_RESOURCE_BIT=24

docker_answers() { docker info >/dev/null 2>&1; }

engine_installed() { command -v dockerd >/dev/null && command -v docker >/dev/null; }

# missing_packages prints the Debian packages this machine still needs.
missing_packages() {
  docker_answers || engine_installed || echo docker.io
  command -v debootstrap >/dev/null || echo debootstrap debian-archive-keyring
  command -v gcc >/dev/null || echo gcc libc6-dev
  command -v pkg-config >/dev/null || echo pkg-config
  pkg-config --exists libseccomp 2>/dev/null || echo libseccomp-dev
  command -v iptables >/dev/null || echo iptables
  command -v ip >/dev/null || echo iproute2
  command -v jq >/dev/null || echo jq
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "$@"
}

ensure_packages() {
  local packages
  read -ra packages <<<"$(missing_packages | tr '\n' ' ')"
  ((${#packages[@]} == 0)) && return
  [[ $EUID == 0 ]] || die "these packages are missing and installing them needs root: ${packages[*]}"
  command -v apt-get >/dev/null || die "install these (Debian's names) and run again: ${packages[*]}"
  step '20 s' "Installing ${packages[*]}" install_packages "${packages[@]}"
}

ensure_docker() {
  if docker_answers; then
    check_runtime
    return
  fi
  [[ $EUID == 0 ]] || die "docker does not answer and starting it needs root: start it, or run this as root"
  step '5 s' 'Starting the docker daemon' start_docker
}

# check_runtime: a daemon that somebody else started, where it takes our runtime.
check_runtime() {
  if ! may_set_resources && [[ $(docker info --format '{{.DefaultRuntime}}') != narrow ]]; then
    die 'this host withholds CAP_SYS_RESOURCE, and the running docker cannot start nodes without it: stop that daemon and run this again'
  fi
}

start_docker() {
  if [[ -d /run/systemd/system ]] && may_set_resources; then
    rm -f "$DOCKERD_PID_FILE"
    systemctl start docker
  else
    forget_dead_daemon
    start_dockerd_by_hand
  fi
  await_docker
}

# forget_dead_daemon removes the pid files of a daemon that was killed: once
# its number belongs to another process, dockerd would take that for itself, or
# for its containerd, and wait for it in vain.
forget_dead_daemon() {
  forget_unless_running /var/run/docker.pid dockerd
  forget_unless_running /var/run/docker/containerd/containerd.pid containerd
}

forget_unless_running() {
  local file=$1 program=$2
  [[ -f $file ]] || return 0
  process_runs "$(cat "$file")" "$program" || rm -f "$file"
}

# process_runs PID PROGRAM. A killed process that nobody has waited for still
# has a number and a name, but no executable.
process_runs() { [[ $(readlink "/proc/$1/exe") == */$2* ]]; }

start_dockerd_by_hand() {
  local flags=()
  if ! may_set_resources; then
    # A copy, because the daemon outlives this directory.
    install -m 755 "$KIND_DIR/narrow-runtime" "$NARROW_RUNTIME"
    flags=(--add-runtime "narrow=$NARROW_RUNTIME" --default-runtime narrow --oom-score-adjust 0)
  fi
  mkdir -p "$BUILD_DIR"
  setsid nohup dockerd "${flags[@]}" >"$BUILD_DIR/dockerd.log" 2>&1 </dev/null {LOCK}>&- &
  echo $! >"$DOCKERD_PID_FILE"
}

await_docker() {
  { set +x; } 2>/dev/null
  local deadline=$((SECONDS + 60))
  until docker_answers; do
    if ((SECONDS >= deadline)) || ! daemon_starts; then
      tail -n 20 "$BUILD_DIR/dockerd.log" || true
      die "dockerd does not start; its log is $BUILD_DIR/dockerd.log"
    fi
    sleep 0.3
  done
}

# daemon_starts: where systemd starts it there is no pid of ours to look at.
daemon_starts() {
  [[ ! -f $DOCKERD_PID_FILE ]] || process_runs "$(cat "$DOCKERD_PID_FILE")" dockerd
}

# may_set_resources tells whether processes here may be given CAP_SYS_RESOURCE
# (bit 24 of the bounding set, capabilities(7)).
may_set_resources() {
  local bounding
  bounding=$(awk '/^CapBnd:/ {print $2}' /proc/self/status)
  (((16#$bounding >> CAP_SYS_RESOURCE_BIT) & 1))
}

stop_own_docker() {
  [[ -f $DOCKERD_PID_FILE ]] || return 0
  local pid
  pid=$(cat "$DOCKERD_PID_FILE")
  if process_runs "$pid" dockerd; then
    kill "$pid"
    while process_runs "$pid" dockerd; do sleep 0.2; done
  fi
  rm -f "$DOCKERD_PID_FILE"
}

# Every kubelet, containerd and systemd of every node holds inotify instances,
# and the default of 128 is shared by all containers of a host.
raise_inotify_limits() {
  raise fs.inotify.max_user_instances 8192
  raise fs.inotify.max_user_watches 524288
}

raise() {
  local name=$1 wanted=$2 file=/proc/sys/${1//.//}
  (($(cat "$file") >= wanted)) && return
  echo "$wanted" >"$file" || die "cannot set $name: as root, run: sysctl -w $name=$wanted"
}
