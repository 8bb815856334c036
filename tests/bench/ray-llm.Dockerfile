# For the benchmark only: ray.serve.llm with its defaults, on the engine of our own image. Built by tests/bench/containers.py.
ARG BASE=ray-serve-cai:vllm-cpu

# The packages of ray-llm.txt: --build-context packages=DIR
FROM scratch AS packages

# hadolint ignore=DL3006
FROM ${BASE}
COPY --link --from=packages . /opt/bench/packages
COPY --link ray_llm_server.py /opt/bench/ray_llm_server.py
ENV PYTHONPATH=/opt/bench/packages
# Our image turns these two on for itself; without them Serve has its defaults.
CMD ["env", "-u", "RAY_SERVE_ENABLE_HA_PROXY", "-u", "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "python3", "/opt/bench/ray_llm_server.py"]
