"""What an engine is: three small protocols and a card. Nothing here imports Ray or an engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from ray.serve import Application

    from ray_serve_cai.config import ModelConfig

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application."""

Report = Callable[[str], None]
"""Tells the head which phase a starting engine is in."""


class EngineConfig(BaseModel):
    """What one replica is started with; plain data, so that it crosses process borders.

    Attributes:
        engine: registered engine name.
        name: served model name.
        model: local path or Hugging Face id, as the engine takes it.
        arguments: the engine's own server arguments, defaults of this project included.
        ranks: processes of one replica.
        gpus: GPUs of one replica; 0 on CPUs.
        cpus: CPUs that one replica reserves.
        replicas: copies of the model.
        max_ongoing_requests: requests one replica works on at a time.
        drain_s: seconds a leaving replica may take to finish its streams.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    name: str
    model: str
    arguments: dict[str, Any]
    ranks: int
    gpus: int
    cpus: float
    replicas: int = 1
    max_ongoing_requests: int = 1000
    drain_s: int = 60


@runtime_checkable
class LLMEngineProtocol(Protocol):
    """A running engine inside a Serve replica."""

    @property
    def engine_type(self) -> str:
        """The registered name, for example ``vllm``."""

    @property
    def model_name(self) -> str:
        """The served name."""

    async def start(self, report: Report) -> None:
        """Load the model and return when it can generate.

        Raises:
            RayServeCaiError: typed, one readable line, for what a user can mend.
        """

    def asgi_app(self) -> ASGIApp:
        """The engine's own HTTP application; valid after `start`."""

    async def check_health(self) -> None:
        """Return while the engine works; raise when it must be replaced."""

    async def shutdown(self) -> None:
        """Stop the engine's processes."""


class ConfigBuilderProtocol(Protocol):
    """Turns a user's model configuration into what the engine is started with. Pure; imports no engine."""

    def get_default_config(self) -> dict[str, Any]:
        """Engine arguments this project sets unless the user does."""

    def validate_config(self, config: ModelConfig) -> None:
        """Check what can be checked without the engine.

        Raises:
            ConfigError: naming the key, the value and the fix.
        """

    def build_config(self, config: ModelConfig, *, model: str, device: str) -> EngineConfig:
        """Complete the configuration; ``model`` is the resolved path or id, ``device`` cpu or cuda."""


class DeploymentFactoryProtocol(Protocol):
    """Turns an engine configuration into a Ray Serve application."""

    def create_deployment(self, config: EngineConfig) -> Application:
        """The application, with its resources and placement."""


@dataclass(frozen=True)
class EngineInfo:
    """A registered engine. The three parts are named as ``module:attribute`` and loaded when first used.

    Attributes:
        name: what users write in ``engine:``.
        description: one line.
        distribution: the Python distribution whose presence means that the engine is installed.
        install: the command that would install it.
        alternatives: other distributions that bring the same engine.
    """

    name: str
    description: str
    config_builder: str
    deployment_factory: str
    engine: str
    distribution: str
    install: str
    alternatives: tuple[str, ...] = ()
