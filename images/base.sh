#!/usr/bin/env bash
# Ensures that the base image is there: BASE_IMAGE, or the one that images/versions.json names.
#
# There already: nothing happens. Otherwise it is loaded from WHEELHOUSE where that is set, or pulled; where no registry
# answers, root on Debian or Ubuntu makes a debian:* image with debootstrap, from DEBIAN_MIRROR or the archive that the
# machine's own apt sources use.
# Exit codes: 0 it is there, 69 it could not be had (one line says why).
set -euo pipefail

readonly PULL_TIMEOUT_S=60
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Addresses of mirrors may have a password.
without_passwords() { sed -E 's#//[^/[:space:]]*@#//#g'; }
say() { printf 'base image: %s\n' "$*" | without_passwords >&2; }
fail() {
  printf 'ray-serve-cai: error: %s\n' "$*" | without_passwords >&2
  exit 69
}

# The archive for debootstrap: this machine's own if it is Debian (whichever format its sources have).
debian_mirror() {
  local uri=${DEBIAN_MIRROR:-}
  if [ -z "$uri" ] && grep -qs '^ID=debian' /etc/os-release; then
    # shellcheck disable=SC2016  # apt's own fields
    uri=$(apt-get indextargets --format '$(REPO_URI) $(SITE)' 'Created-By: Packages' |
      awk '$1 ~ /^https?:/ && $1 !~ /security/ { print $1; exit }')
  fi
  printf '%s' "${uri:-http://deb.debian.org/debian/}"
}

# What the official slim image leaves out, and this machine's traces. Licences stay.
strip_root() {
  local root=$1
  find "$root/usr/share/doc" -type f ! -name copyright -delete
  find "$root/usr/share/doc" -type d -empty -delete
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/log/* \
    "$root"/usr/share/{man,info,locale,groff,lintian,linda}/* "$root"/tmp/* "$root"/etc/hostname
  : >"$root/etc/resolv.conf"
  {
    printf 'path-exclude /usr/share/%s/*\n' doc man info locale groff lintian linda
    printf 'path-include /usr/share/doc/*/copyright\n'
  } >"$root/etc/dpkg/dpkg.cfg.d/docker"
}

# The normal sources, so that an image built on this one does not depend on where it was made.
upgrade_root() {
  local root=$1 suite=$2
  rm -f "$root/etc/apt/sources.list"
  cat >"$root/etc/apt/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: http://deb.debian.org/debian
Suites: $suite $suite-updates
Components: main
Signed-By: $KEYRING

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: $suite-security
Components: main
Signed-By: $KEYRING
SOURCES
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  local mirror=${DEBIAN_MIRROR:-} options="-o APT::Update::Error-Mode=any"
  mirror=${mirror%/}
  if [ -n "$mirror" ]; then
    local security=${DEBIAN_SECURITY_MIRROR-$mirror-security}
    {
      echo "deb [signed-by=$KEYRING] $mirror $suite main"
      echo "deb [signed-by=$KEYRING] $mirror $suite-updates main"
      [ -z "$security" ] || echo "deb [signed-by=$KEYRING] $security $suite-security main"
    } >"$root/tmp/sources.list"
    options+=" -o Dir::Etc::SourceList=/tmp/sources.list -o Dir::Etc::SourceParts=/dev/null"
  fi
  if [ -n "$ca" ]; then
    install -m 644 "$ca" "$root/tmp/ca.pem"
    options+=" -o Acquire::https::CaInfo=/tmp/ca.pem"
  fi
  DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c "apt-get $options update -qq && apt-get $options upgrade -y -qq" >"$work/log" 2>&1 </dev/null ||
    say "security updates could not be had, the image holds the release as it is: $(tail -n 1 "$work/log")"
}

# What wget, with which debootstrap downloads, is told in a file and not in its arguments.
wget_settings() {
  local login=${1#*://}
  login=${login%%/*}
  if [ "$login" != "${login%@*}" ]; then
    login=${login%@*}
    login=${login//%/\\x} # %40 is an @
    printf 'user = %b\npassword = %b\n' "${login%%:*}" "${login#*:}"
  fi
  [ -z "$ca" ] || printf 'ca_certificate = %s\n' "$ca"
}

bootstrap() {
  local image=$1 suite mirror ca=${SSL_CERT_FILE:-${REQUESTS_CA_BUNDLE:-${PIP_CERT:-}}}
  suite=${image#debian:}
  suite=${suite%-slim}
  case $suite in # releases have names, and tags have numbers too
    12 | 12.*) suite=bookworm ;;
    13 | 13.*) suite=trixie ;;
  esac
  mirror=$(debian_mirror)
  if ! command -v debootstrap >/dev/null || [ ! -f "$KEYRING" ]; then
    say "installing debootstrap"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      debootstrap debian-archive-keyring; } >/dev/null </dev/null || fail "debootstrap could not be installed"
  fi
  work=$(mktemp -d /var/tmp/rscai-base.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  say "making $image with debootstrap from $mirror (about a minute)"
  (umask 077 && wget_settings "$mirror" >"$work/wgetrc")
  WGETRC=$work/wgetrc debootstrap --variant=minbase --keyring="$KEYRING" "$suite" "$work/root" "$(without_passwords <<<"$mirror")" >"$work/log" 2>&1 ||
    fail "debootstrap of $suite from $mirror failed: $(tail -n 1 "$work/log"); check DEBIAN_MIRROR, and for an authority of your own SSL_CERT_FILE"
  say "adding security updates"
  upgrade_root "$work/root" "$suite"
  strip_root "$work/root"
  tar -C "$work/root" --numeric-owner -c . | docker import --change 'CMD ["bash"]' - "$image" >/dev/null
}

main() {
  local image=${BASE_IMAGE:-} answer
  image=${image:-$(sed -n 's/.*"base_image": *"\([^"]*\)".*/\1/p' "$(dirname "$0")/versions.json")}
  ! docker image inspect "$image" >/dev/null 2>&1 || return 0

  if [ -n "${WHEELHOUSE:-}" ]; then
    say "loading $image from $WHEELHOUSE"
    if ! docker load --quiet --input "$WHEELHOUSE/base.tar" >/dev/null 2>&1 || ! docker image inspect "$image" >/dev/null 2>&1; then
      fail "$WHEELHOUSE/base.tar holds no $image that Docker can load; collect it where there is a network: make wheelhouse"
    fi
    return
  fi
  say "pulling $image (at most $PULL_TIMEOUT_S s)"
  if answer=$(timeout "$PULL_TIMEOUT_S" docker pull --quiet "$image" 2>&1); then
    say "pulled $image"
    return
  fi
  say "no registry gave it: $(tail -n 1 <<<"${answer:-timed out}")"
  case $image in
    debian:*) [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -z "${DOCKER_HOST:-}" ] ;;
    *) false ;;
  esac || fail "the base image $image is not here and cannot be pulled; load it with 'docker load', or set BASE_IMAGE"
  bootstrap "$image"
  say "made $image, $(($(docker image inspect --format '{{.Size}}' "$image") / 1000000)) MB"
}

main
