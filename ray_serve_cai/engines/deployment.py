"""An engine configuration -> a Serve application, for callers that hold the engine's arguments as a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.engines.engine_config import EngineConfig, of_arguments

if TYPE_CHECKING:
    from ray.serve import Application


class EngineDeploymentFactory:
    """`DeploymentFactoryProtocol` of one engine; it also takes what the engine's config builder returned.

    Attributes:
        info: the engine.
        tensor_parallel: the engine's name for the number of ranks that share each layer.
        pipeline_parallel: its name for the number of ranks that share the list of layers.
    """

    info: ClassVar[EngineInfo]
    tensor_parallel: ClassVar[str] = "tensor_parallel_size"
    pipeline_parallel: ClassVar[str] = "pipeline_parallel_size"

    def create_deployment(
        self,
        engine_config: EngineConfig | Mapping[str, Any],
        num_replicas: int = 1,
        tensor_parallel_size: int = 1,
        use_cpu: bool = False,
    ) -> Application:
        """The application; the numbers count only beside a mapping. Each rank gets a GPU, unless ``use_cpu``.

        Such an application may run on any cluster: its placement asks for no node labels.

        Raises:
            ConfigError: the mapping names no model.
        """
        from ray_serve_cai.engines.replica import ReplicaFactory

        if not isinstance(engine_config, EngineConfig):
            arguments = dict(engine_config)
            if tensor_parallel_size > 1:
                arguments[self.tensor_parallel] = tensor_parallel_size
            ranks = arguments.get(self.tensor_parallel, 1) * arguments.get(self.pipeline_parallel, 1)
            engine_config = of_arguments(self.info, arguments, ranks=ranks, use_cpu=use_cpu, replicas=num_replicas, labelled=False)
        return ReplicaFactory().create_deployment(engine_config)
