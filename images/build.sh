#!/usr/bin/env bash
# Builds images: images/build.sh [TARGET...]; images/build.sh --help says more. The work is done by images/build.py.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m images.build "$@"
