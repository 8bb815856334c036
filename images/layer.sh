#!/usr/bin/env bash
# Makes one layer of an image's virtual environment below /layer, in a build stage: layer.sh torch|engine|ray|cai
# Uses IMAGE and EXTRA_INDEX_URL; /locks, /wheels and /shims are mounted, uv is in /tools. Equal inputs give equal files: everything
# has one modification time, also in the bytecode, which is that of a file that somebody changes later no more.
set -euo pipefail

layer=$1
venv=/opt/ray-serve-cai/venv
index=()
[ -z "${EXTRA_INDEX_URL:-}" ] || index=(--extra-index-url "$EXTRA_INDEX_URL" --index-strategy unsafe-best-match)
[ ! -e /wheels/COMPLETE ] || index=(--no-index) # a wheelhouse

# The wheels of a CUDA image are not kept unpacked for another build: that would be as much again as they take here.
if [ "$DEVICE" = cuda ]; then
  export UV_CACHE_DIR=/tmp/uv UV_LINK_MODE=hardlink
fi

echo "installing $(grep -c '^[a-z]' "/locks/$IMAGE/$layer.txt") packages"
/tools/bin/uv venv --quiet --python "$(command -v python3.11)" "$venv"
rm -f "$venv"/bin/activate* "$venv/.gitignore" "$venv/CACHEDIR.TAG" "$venv/.lock"
find "$venv" ! -type d >/tmp/skeleton
/tools/bin/uv pip install --quiet --python "$venv/bin/python3" --require-hashes --no-deps --find-links /wheels \
  "${index[@]}" --requirements "/locks/$IMAGE/$layer.txt"
bash /slim.sh "$venv" "/shims/$IMAGE" "$layer"
# The environment's own files come with its first layer.
[ "$layer" = torch ] || xargs --arg-file=/tmp/skeleton rm -f
rm -rf "$venv/.lock" /tmp/uv
# Notes of uv on wheels from a directory have that file's time in them.
find "$venv" -path '*.dist-info/uv_cache.json' -delete
find "$venv" -path '*.dist-info/RECORD' -exec sed -i '/\/uv_cache\.json,/d' {} +
find "$venv" -exec touch --no-dereference --date=@315532800 {} +
# Some packages hold templates that are no Python.
python3.11 -m compileall -qq -j 0 --invalidation-mode timestamp "$venv"/lib/python3.11/site-packages || true
mkdir -p /layer/opt
mv /opt/ray-serve-cai /layer/opt/
find /layer -exec touch --no-dereference --date=@315532800 {} +
