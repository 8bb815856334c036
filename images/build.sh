#!/usr/bin/env bash
# Builds images: images/build.sh [TARGET...], all targets of images/docker-bake.hcl by default.
# This machine's pip settings, extra wheels and CA bundle are used for the build and stay out of the image.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'image: %s\n' "$*" >&2; }
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^target "\(.*\)" {$/\1/p' images/docker-bake.hcl)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
set_args=()

# A CA bundle that this machine was told to use, for builds behind a proxy that opens TLS.
ca=${SSL_CERT_FILE:-${PIP_CERT:-${REQUESTS_CA_BUNDLE:-}}}
if [ -n "$ca" ] && [ -f "$ca" ]; then set_args+=(--set "*.secrets=id=ca,src=$ca"); fi

# pip's own word on its index and its find-links directory.
pip_setting() { python3 -m pip config list 2>/dev/null | sed -n "s/^[^=]*\.$1='\(.*\)'$/\1/p" | tail -n 1; }
index=$(pip_setting index-url || true)
links=$(pip_setting find-links || true)
if [ -n "$index" ]; then
  printf '[global]\nindex-url = %s\n' "$index" >"$scratch/pip.conf"
  printf '[[index]]\nurl = "%s"\ndefault = true\n' "$index" >"$scratch/uv.toml"
  set_args+=(--set "*.secrets=id=pip,src=$scratch/pip.conf" --set "*.secrets=id=uv,src=$scratch/uv.toml")
fi
if [ -n "$links" ] && [ -d "$links" ]; then
  # What this directory holds is not asked for elsewhere: PyTorch's index may be out of reach here.
  set_args+=(--set "*.contexts.wheels=$links" --set "*.args.EXTRA_INDEX_URL=")
fi

say "building ${targets[*]} (layers that did not change are kept)"
started=$SECONDS
# The commit that last changed what is in the image: other commits leave the image as it is.
sources=(images ray_serve_cai pyproject.toml)
REVISION=$(git log -1 --format=%H -- "${sources[@]}" 2>/dev/null || true) \
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct -- "${sources[@]}" 2>/dev/null || echo 0) \
  docker buildx bake --progress "${RSCAI_PROGRESS:-plain}" -f images/docker-bake.hcl "${set_args[@]}" "${targets[@]}" >"$scratch/log" 2>&1 || {
  tail -n 60 "$scratch/log" >&2
  printf 'ray-serve-cai: error: building %s failed; the end of the log stands above.\n' "${targets[*]}" >&2
  exit 70
}
for target in "${targets[@]}"; do
  size=$(docker image inspect --format '{{.Size}}' "ray-serve-cai:$target")
  say "ray-serve-cai:$target, $((size / 1000000)) MB, built in $((SECONDS - started)) s"
done
