"""What the Applied ML Prototype runs in a session of its project: a cluster of the size that was asked for in the catalog's form.

Its text runs as cells of a Jupyter kernel. What cannot be is an exception, which ends the task with its message.
"""

import os

from ray_serve_cai.cai import CAIClusterManager

manager = CAIClusterManager(name=os.environ.get("CLUSTER_NAME") or "ray-serve")
started = manager.start_cluster(
    num_workers=int(os.environ.get("WORKERS") or 1),
    cpu=float(os.environ.get("WORKER_CPU") or 8),
    memory=float(os.environ.get("WORKER_MEMORY") or 32),
    num_gpus=int(os.environ.get("WORKER_GPUS") or 1),
    head_cpu=2,
    head_memory=8,
    models=[{"source": os.environ.get("MODEL") or "demo"}],
)
print(f"{started['url']}/v1")
