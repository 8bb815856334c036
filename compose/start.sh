#!/usr/bin/env bash
# Checks this bundle, loads its image where Docker does not have it yet, and starts a cluster from it. No network is asked for anything.
#   ./start                              the demo model, one worker
#   MODEL=/path/to/model WORKERS=2 PORT=8080 ./start
# Exit codes: 66 the bundle is damaged, 69 no Docker, otherwise those of compose/up.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

say() { printf 'bundle: %s\n' "$*" >&2; }
fail() {
  local code=$1
  shift
  printf 'ray-serve-cai: error: %s\n' "$*" >&2
  exit "$code"
}
case ${1:-} in
  -h | --help)
    sed -n '2,5s/^# //p' "$0"
    exit
    ;;
esac

image=$(cat "$here/IMAGE")
docker version >/dev/null 2>&1 || fail 69 "no Docker daemon answers this user; install and start Docker Engine 24 or newer with Compose v2."
# A model beside whoever calls is found from everywhere.
case ${MODEL:-} in
  ./* | ../*) MODEL=$(realpath "$MODEL") && export MODEL ;;
esac
say "checking the files"
checked=$(mktemp)
trap 'rm -f "$checked"' EXIT
grep -v ' image\.tar\.zst$' "$here/SHA256SUMS" >"$checked"
(cd "$here" && sha256sum --check --quiet --strict "$checked" >&2) ||
  fail 66 "the bundle $here is damaged: the files above are not what SHA256SUMS says; copy it again."
if [ "$(docker image inspect --format '{{json .RootFS.Layers}}' "$image" 2>/dev/null)" != "$(cat "$here/LAYERS")" ]; then
  grep ' image\.tar\.zst$' "$here/SHA256SUMS" >"$checked"
  (cd "$here" && sha256sum --check --quiet --strict "$checked" >&2) ||
    fail 66 "the bundle $here is damaged: its image is not what SHA256SUMS says; copy it again."
  say "loading $image, $(($(stat -c %s "$here/image.tar.zst") / 1000000)) MB compressed"
  docker load --quiet --input "$here/image.tar.zst" >/dev/null || fail 70 "Docker cannot load $here/image.tar.zst; its message stands above."
fi
rm -f "$checked"
compose="docker compose --project-name ray-serve-cai"
IMAGE=$image START="$0" STOP="$compose down" LOGS="$compose logs" STATUS="$compose exec -T head ray-serve-cai status" exec "$here/compose/up.sh"
