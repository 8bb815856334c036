#!/usr/bin/env bash
# Installs in a build stage the Debian packages that the lists LIST... name: apt.sh LIST...   or only collects them: apt.sh --collect DIR LIST...
# They come from /debs alone where a wheelhouse is mounted there; else from the mirror that the secret apt names; else from the base
# image's own sources. The secret ca is trusted for https. No setting reaches the layer.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

collect=""
if [ "$1" = --collect ]; then
  collect=$2
  shift 2
fi

# /dev/shm belongs to the step, not to the layer.
sources=/dev/shm/sources.list
if [ -f /debs/Packages ]; then
  echo "deb [trusted=yes] file:/debs ./" >$sources
elif [ -f /run/secrets/apt ]; then
  # shellcheck source=/dev/null
  sed "s/CODENAME/$(. /etc/os-release && echo "$VERSION_CODENAME")/" /run/secrets/apt >$sources
fi
options=()
[ ! -f $sources ] || options+=(-o "Dir::Etc::SourceList=$sources" -o Dir::Etc::SourceParts=/dev/null)
# It is readable for apt's own user, to which downloads are left.
[ ! -f /run/secrets/ca ] || options+=(-o Acquire::https::CaInfo=/run/secrets/ca)

# Downloads stay in the cache that is mounted over apt's own.
rm -f /etc/apt/apt.conf.d/docker-clean
# An archive that does not answer would be a warning: no security updates, and nobody would know.
apt-get "${options[@]}" -o APT::Update::Error-Mode=any update -q
if [ -n "$collect" ]; then
  mkdir -p "$collect/partial"
  cat "$@" | xargs apt-get "${options[@]}" install -y -qq --no-install-recommends --download-only -o Dir::Cache::archives="$collect"
  rm -rf "$collect/partial" "$collect/lock"
  cd "$collect"
  for deb in *.deb; do
    dpkg-deb --field "$deb"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d ' ' -f 1)"
  done >/dev/shm/Packages
  mv /dev/shm/Packages Packages # the last file: with it the directory is complete
  exit
fi
cat "$@" | xargs apt-get "${options[@]}" install -y -qq --no-install-recommends
rm -rf /var/log/* /var/lib/dpkg/*-old /var/cache/debconf/*-old
find / -xdev -perm /6000 -type f -exec chmod a-s {} +
