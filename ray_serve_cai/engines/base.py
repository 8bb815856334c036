"""What an engine is: three small protocols and a card. Nothing here imports Ray or an engine."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ray_serve_cai.errors import ConfigError

if TYPE_CHECKING:
    from ray.serve import Application

    from ray_serve_cai.engines.engine_config import EngineConfig

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application."""

Report = Callable[[str], None]
"""Tells the head which phase a starting engine is in."""


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


@runtime_checkable
class SpansNodes(Protocol):
    """What an engine has besides, when one replica of it may stand on several nodes; its card then says ``spans_nodes``.

    ``start`` of `LLMEngineProtocol` starts the ranks of the first node, which ``config.seat`` tells it.
    """

    @classmethod
    def run_shard(cls, config: EngineConfig) -> None:
        """Run the ranks of a further node, ``config.seat.node``, in this process, until they end."""


@runtime_checkable
class ConfigBuilderProtocol(Protocol):
    """Turns a user's configuration into the engine's own arguments. Pure; imports no engine.

    A user configuration is a mapping with the keys of `ray_serve_cai.engines.user_config.UserConfig`.
    """

    def get_default_config(self) -> dict[str, Any]:
        """Keys of a user configuration, and what holds where the user says nothing."""

    def validate_config(self, user_config: Mapping[str, Any]) -> tuple[bool, str | None]:
        """(True, None), or (False, message); the message names the key, the value and the fix."""

    def build_config(self, user_config: Mapping[str, Any]) -> dict[str, Any]:
        """The engine's arguments; ``model`` is the path or id to load, ``served_model_name`` the name in the API.

        Raises:
            ConfigError: with the message of `validate_config`.
        """


@runtime_checkable
class DeploymentFactoryProtocol(Protocol):
    """Turns an engine configuration into a Ray Serve application."""

    def create_deployment(self, engine_config: EngineConfig) -> Application:
        """The application, with its resources and placement."""


_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,40}[a-z0-9])?")
_PART = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class EngineInfo:
    """A registered engine. The three parts are named as ``module:attribute`` and loaded when first used.

    Attributes:
        name: what users write in ``engine:``; lower case letters, digits, '.', '_' and '-'.
        description: one line.
        config_builder: a `ConfigBuilderProtocol`.
        engine: an `LLMEngineProtocol`; called with the `EngineConfig`, in the replica's process.
        distribution: the Python distribution whose presence means that the engine is installed; empty for an engine that comes
            with the program that registers it, and is then looked for on no node.
        deployment_factory: a `DeploymentFactoryProtocol`; the default runs the engine's own HTTP application in a replica.
        install: the command that would install it.
        alternatives: other distributions that bring the same engine.
        one_replica_paths: paths of the engine's HTTP application, what lies below them included, whose requests change only the
            replica that they reach.
            They are refused where a model has several replicas, which would then differ.
        spans_nodes: whether a replica may stand on several nodes; the engine is then a `SpansNodes` too.
        copies_are_replicas: whether ``data_parallel_size`` of a dense model becomes replicas, since the engine would run independent
            copies in one.
        weights: whether a model is files, which must be there before anything is started.

    Raises:
        ConfigError: a field has an impossible value.
    """

    name: str
    description: str
    config_builder: str
    engine: str
    distribution: str = ""
    deployment_factory: str = "ray_serve_cai.engines.replica:ReplicaFactory"
    install: str = ""
    alternatives: tuple[str, ...] = ()
    one_replica_paths: tuple[str, ...] = ()
    spans_nodes: bool = False
    copies_are_replicas: bool = False
    weights: bool = True

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"engine name {self.name!r} cannot be used; use lower case letters, digits, '.', '_' and '-'.")
        for field in ("config_builder", "engine", "deployment_factory"):
            if not _PART.fullmatch(getattr(self, field)):
                raise ConfigError(f"engine {self.name}: {field} is {getattr(self, field)!r}; name it as module:attribute.")
        if not self.install:
            object.__setattr__(self, "install", f"pip install {self.distribution}" if self.distribution else "see who registers it")
