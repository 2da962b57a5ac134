# What the scripts in servers/ have in common: the verbs `install`, `start DIR` and `stop DIR`, ports, pids, keys, waiting.
# A script names itself (name), its ports and the signal that ends it (ending), and defines `install`, `configure DIR PORT…` (writes
# DIR/env), `launch DIR` (becomes the server, in the folder DIR/data) and `answers DIR`. A second start keeps what is in DIR, ports
# included, so that a test can restart a server under its clients.
set -euo pipefail

cache=${TIDEMILL_CACHE:-$HOME/.cache/tidemill}

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$@"; exit 1; }

# Installs Debian packages, without starting what they bring (their scripts ask for the run level). Arguments: package…
packages() {
  local run=()
  say "installing system packages: $*"
  [ "$(id -u)" = 0 ] || run=(sudo)
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || die "missing: $*; run as root: apt-get install $*"
  { "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update -qq \
    && "${run[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
      apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@"; } >/dev/null \
    || die "apt-get failed; install by hand: apt-get install $*"
}

# A port that nobody listens on, below the range from which the kernel takes those of outgoing connections.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# The process that DIR/pid names, if it is this server: the kernel may have given the number to somebody else.
pid_of() {
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) || return 1
  [ "$(readlink "/proc/$pid/cwd")" = "$(readlink -f "$1/data")" ] && echo "$pid"
}

# A certificate authority and a certificate for 127.0.0.1, in DIR/tls.
keys() {
  local tls=$1/tls
  [ ! -e "$tls/.complete" ] || return 0
  mkdir -p "$tls"
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=Tidemill test authority" -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout "$tls/server.key" -out "$tls/server.csr" 2>/dev/null
  openssl x509 -req -in "$tls/server.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 3650 \
    -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") -out "$tls/server.pem" 2>/dev/null
  touch "$tls/.complete"
}

# Waits until the server answers; fails if it ends before that.
await() {
  local dir=$1 pid=$2 deadline=$((SECONDS + 60))
  until answers "$dir"; do
    kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

start() {
  local dir=$1 pid attempt numbers
  install
  mkdir -p "$dir" && dir=$(cd "$dir" && pwd)
  if pid=$(pid_of "$dir"); then
    await "$dir" "$pid" || die "process $pid does not answer; see $dir/log"
    return
  fi
  for attempt in 1 2 3 4 5; do
    # The first try is on the ports of the last time, if there was one.
    if [ "$attempt" != 1 ] || [ ! -e "$dir/env" ]; then
      numbers=()
      while [ ${#numbers[@]} -lt "$ports" ]; do numbers+=("$(free_port)"); done
      configure "$dir" "${numbers[@]}"
    fi
    (launch "$dir") </dev/null >"$dir/log" 2>&1 &
    pid=$!
    echo "$pid" > "$dir/pid"
    if await "$dir" "$pid"; then
      say "answers (pid $pid)"
      return
    fi
    if kill -9 "$pid" 2>/dev/null; then die "it runs but does not answer; see $dir/log"; fi
    say "it ended before it answered (a port may be taken); trying other ports. It said: $(tail -1 "$dir/log")"
  done
  die "it does not start; see $dir/log"
}

stop() {
  local dir pid deadline=$((SECONDS + 30))
  dir=$(cd "$1" 2>/dev/null && pwd) || return 0
  if pid=$(pid_of "$dir"); then
    kill -s "$ending" "$pid"
    while kill -0 "$pid" 2>/dev/null; do
      [ "$SECONDS" -lt "$deadline" ] || { kill -9 "$pid" 2>/dev/null || true; break; }
      sleep 0.05
    done
  fi
  rm -f "$dir/pid"
}

verb() {
  case "${1:-} ${2:-}" in
    "install ") install ;;
    "start "?*) start "$2" ;;
    "stop "?*) stop "$2" ;;
    *) die "usage: $name install | start DIR | stop DIR" ;;
  esac
}
