#!/usr/bin/env bash
# Collects in a build stage the wheels that locks name, checked by their hashes, below /out: collect.sh LOCK...
# Uses EXTRA_INDEX_URL; /wheels is mounted where the builder has wheels of its own.
set -euo pipefail

index=()
[ -z "${EXTRA_INDEX_URL:-}" ] || index=(--extra-index-url "$EXTRA_INDEX_URL")
[ ! -d /wheels ] || index+=(--find-links /wheels)
cat "$@" >/tmp/lock.txt
echo "collecting $(grep -c '^[a-z]' /tmp/lock.txt) wheels"
/tools/bin/pip download --quiet --cert /etc/ssl/certs/ca-certificates.crt --no-cache-dir --require-hashes --no-deps \
  --only-binary :all: --dest /out "${index[@]}" --requirement /tmp/lock.txt
# The last file: with it the directory is complete. It says for which locks.
sha256sum </tmp/lock.txt | cut -d ' ' -f 1 >/out/COMPLETE
