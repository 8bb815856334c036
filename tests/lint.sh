#!/usr/bin/env bash
# Style, types, shell scripts, Dockerfiles, and whether generated files are what they would be generated as.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-build/venv}/bin

"$bin/ruff" check .
"$bin/mypy"
shopt -s nullglob
"$bin/shellcheck" --external-sources .ci/run .ci/release/* compose/*.sh images/*.sh tests/*.sh tests/unit/images/logs/*.sh tests/gpu/*.sh docs/examples/slurm/*.sbatch
"$bin/hadolint" images/Dockerfile
"$bin/python" -m images.generate --check
"$bin/python" docs/generate.py --check
"$bin/python" -m images.sizes --from docs/images-sizes.json --page docs/images-sizes.md --check
echo "lint: clean" >&2
