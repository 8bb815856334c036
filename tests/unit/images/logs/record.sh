#!/usr/bin/env bash
# Records the logs beside this file: what BuildKit, uv, apt and images/manifest.py really print where a build fails.
#   tests/unit/images/logs/record.sh [STAGE...]        needs the image ray-serve-cai:vllm-cpu, build/venv, and a package index
# A CA bundle in SSL_CERT_FILE is used. Nothing gets a tag. By hand were made: disk-layer (a daemon with 400 MB), memory (--cgroup-parent with
# 60 MB), base-tls (a registry with a certificate of its own), daemon (a DOCKER_HOST that is not there), built.txt and locks-*; with apt-get
# alone, at a server that has only what the names say: apt-no-archive, -certificates and -security, apt-untrusted; with uv and pip alone,
# without a network: pytorch-*.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../../../.. && pwd)

stages=("$@")
# uv, os and pip are what the other stages start from.
[ ${#stages[@]} -gt 0 ] || mapfile -t stages < <(sed -nE 's/^FROM .* AS ([a-z-]+)$/\1/p' Dockerfile | grep -vxE 'uv|os|pip')

certificate=$(mktemp -d)
trap 'rm -rf "$certificate"' EXIT
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=index -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1 \
  -keyout "$certificate/tls.key" -out "$certificate/tls.crt" 2>/dev/null
secret=()
[ -z "${SSL_CERT_FILE:-}" ] || secret=(--secret "id=ca,src=$SSL_CERT_FILE")

for stage in "${stages[@]}"; do
  if docker buildx build --progress plain --target "$stage" --no-cache-filter "$stage" "${secret[@]}" \
    --build-context bin="$root/build/venv/bin" --build-context images="$root/images" --build-context certificate="$certificate" \
    . >"$stage.log" 2>&1; then
    echo "$stage was built: it must fail" >&2
    exit 1
  fi
  sed -i -E 's/( on )[0-9.]+(:53)/\1192.0.2.53\2/' "$stage.log" # whoever recorded it has a name server
  printf '%s: %s\n' "$stage" "$(tail -n 1 "$stage.log")" >&2
done
