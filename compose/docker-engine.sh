#!/usr/bin/env bash
# Ensures a running Docker Engine >= 24 with Compose v2 and buildx.
#
# All there: says nothing and returns at once. Otherwise, as root on Debian or Ubuntu, it installs what is
# missing from the distribution's packages and starts the daemon; RSCAI_INSTALL_DOCKER=no forbids installing.
# Debian 12 takes them from DEBIAN_MIRROR, or from where its own apt sources take theirs.
# Asks nothing. Exit codes: 0 ready, 69 no usable engine (one line says what and how to get it).
set -euo pipefail

readonly MIN_ENGINE=24
readonly START_TIMEOUT_S=60
readonly LOG=/var/log/dockerd.log
readonly INSTALL_DOC=https://docs.docker.com/engine/install/

say() { printf 'docker-engine: %s\n' "$*" >&2; }
fail() {
  printf 'ray-serve-cai: error: %s\n' "$*" >&2
  exit 69
}

engine_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }
has_plugin() { docker "$1" version >/dev/null 2>&1; }
is_old() { [ "${1%%.*}" -lt "$MIN_ENGINE" ]; }

# Distribution ID and codename, empty where there is no os-release.
os_field() { (
  # shellcheck source=/dev/null
  . /etc/os-release 2>/dev/null || true
  printf '%s' "${!1:-}"
); }

# The archive of DEBIAN_MIRROR, or that of this machine's own apt sources, whichever format they are written in.
apt_mirror() {
  local codename=$1 uri=${DEBIAN_MIRROR:-}
  if [ -z "$uri" ]; then
    # shellcheck disable=SC2016  # apt's own fields
    uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
      awk -v c="$codename" '$1 == c || $1 ~ /^(old)*stable$/ { print $2; exit }')
  fi
  uri=${uri:-http://deb.debian.org/debian}
  printf '%s/' "${uri%/}"
}

without_password() { sed -E 's#//[^/[:space:]]*@#//#' <<<"$1"; }

# What apt's auth.conf.d says of an address with a user and a password; nothing for one without.
apt_login() {
  local login=${1#*://}
  login=${login%%/*}
  [ "$login" != "${login%@*}" ] || return 0
  login=${login%@*}
  login=${login//%/\\x} # %40 is an @
  printf 'machine %s login %b' "$(without_password "$1")" "${login%%:*}"
  [ "$login" = "${login#*:}" ] || printf ' password %b' "${login#*:}"
  printf '\n'
}

apt_install() {
  say "installing $*"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null </dev/null
}

# Debian 12 has neither an engine >= 24 nor Compose v2. The next release's packages run on it as they are;
# pinned at 100, nothing else is ever taken from there.
add_trixie() {
  local mirror login
  mirror=$(apt_mirror bookworm)
  say "adding Debian 13 (trixie) from $(without_password "$mirror"), pinned at 100, for Docker's packages only"
  printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: %s\n' \
    "$(without_password "$mirror")" /usr/share/keyrings/debian-archive-keyring.gpg >/etc/apt/sources.list.d/rscai-trixie.sources
  login=$(apt_login "$mirror")
  [ -z "$login" ] || (umask 077 && echo "$login" >/etc/apt/auth.conf.d/rscai-trixie.conf) # the sources are everybody's to read
  printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n' >/etc/apt/preferences.d/rscai-trixie
}

install_packages() {
  local distribution codename
  distribution=$(os_field ID)
  codename=$(os_field VERSION_CODENAME)
  say "$1"
  if [ "${RSCAI_INSTALL_DOCKER:-yes}" = no ]; then
    fail "$1, and RSCAI_INSTALL_DOCKER=no forbids installing it; see $INSTALL_DOC"
  fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "$1; it is installed for you only as root on Debian or Ubuntu; see $INSTALL_DOC"
  fi
  case $distribution/$codename in
    debian/bookworm) add_trixie ;;
    debian/* | ubuntu/*) ;;
    *) fail "$1; it is not installed for you on '$distribution'; see $INSTALL_DOC" ;;
  esac
  say "reading the package lists"
  apt-get update -qq </dev/null || fail "apt-get update failed, so Docker cannot be installed; see $INSTALL_DOC"
  case $distribution/$codename in
    debian/bookworm) apt_install iptables docker.io/trixie docker-cli/trixie docker-compose/trixie docker-buildx/trixie ;;
    debian/*) apt_install iptables docker.io docker-cli docker-compose docker-buildx ;;
    ubuntu/*) apt_install docker.io docker-compose-v2 docker-buildx ;;
  esac || fail "apt-get could not install Docker's packages; see $INSTALL_DOC"
  hash -r
}

# A machine that was switched off hard leaves pid files behind, and dockerd refuses to start beside one.
drop_stale_pid_files() {
  local file
  for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [ -f "$file" ] || continue
    grep -qE 'dockerd|containerd' "/proc/$(cat "$file")/comm" 2>/dev/null || rm -f "$file"
  done
}

start_daemon() {
  local deadline
  if [ -d /run/systemd/system ]; then
    say "starting the docker service"
    systemctl start docker </dev/null || fail "systemctl start docker failed; see journalctl -u docker"
  elif [ -f /var/run/docker.pid ] && grep -qs dockerd "/proc/$(cat /var/run/docker.pid)/comm"; then
    say "dockerd runs already and is still coming up"
  else
    drop_stale_pid_files
    say "starting dockerd, log in $LOG"
    setsid dockerd >>"$LOG" 2>&1 </dev/null 9>&- &
  fi
  deadline=$((SECONDS + START_TIMEOUT_S))
  until docker info >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] ||
      fail "dockerd did not answer within $START_TIMEOUT_S s; its last line: $(tail -n 1 "$LOG" 2>/dev/null)"
    sleep 0.3
  done
}

is_ready() {
  local version
  version=$(engine_version) || return 1
  [ -n "$version" ] && ! is_old "$version" && has_plugin compose && has_plugin buildx
}

main() {
  local version
  is_ready && return

  if [ "$(id -u)" = 0 ]; then # one at a time: two callers would both install, or start two daemons
    exec 9>/run/rscai-docker-engine.lock
    flock 9
    is_ready && return
  fi

  if version=$(engine_version) && [ -n "$version" ]; then
    # It may hold other people's containers: never replaced behind their back.
    is_old "$version" && fail "Docker Engine $version runs here, $MIN_ENGINE or newer is needed; see $INSTALL_DOC"
  elif ! command -v dockerd >/dev/null; then
    install_packages "no Docker Engine is installed or reachable${DOCKER_HOST:+ at DOCKER_HOST=$DOCKER_HOST}"
  elif is_old "$(dockerd --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')"; then
    install_packages "the installed Docker Engine is older than $MIN_ENGINE"
  fi
  if ! has_plugin compose || ! has_plugin buildx; then
    install_packages "Docker Compose v2 or buildx is missing"
  fi

  if ! docker info >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || fail "no Docker daemon answers this user: start it, or join the group 'docker'; see $INSTALL_DOC"
    start_daemon
  fi
  is_ready || fail "Docker Engine $(engine_version || echo '(none)') is not usable: $MIN_ENGINE or newer with Compose v2 and buildx is needed; see $INSTALL_DOC"
  say "ready: Docker Engine $(engine_version)"
}

main
