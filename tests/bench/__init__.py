"""The benchmark: this project beside the bare engine server and ``ray.serve.llm``. Run it with ``python -m tests.bench --help``."""
