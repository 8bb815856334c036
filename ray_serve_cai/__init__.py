"""ray-serve-cai: serve large language models from container images with Ray Serve.

Importing the package imports neither Ray nor an engine.
"""

from importlib.metadata import version

__version__ = version("ray-serve-cai")
