#!/usr/bin/env bash
# Builds images: images/build.sh [TARGET...]; images/build.sh --help says more. The work is done by images/build.py.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v "${PYTHON:-python3}" >/dev/null || {
  echo "ray-serve-cai: error: there is no ${PYTHON:-python3} here; install Python 3.10 or newer, or set PYTHON." >&2
  exit 69
}
exec "${PYTHON:-python3}" -m images.build "$@"
