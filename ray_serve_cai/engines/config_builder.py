"""What config builders have in common: the keys of a `UserConfig`, and what an engine's arguments begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ray_serve_cai.engines import user_config as user
from ray_serve_cai.engines.user_config import UserConfig
from ray_serve_cai.errors import ConfigError


class ConfigBuilder:
    """`ConfigBuilderProtocol` without the engine's own part, which is `arguments`.

    Attributes:
        decided: the engine's arguments that a user may not give, and what decides each.
    """

    decided: ClassVar[Mapping[str, str]] = {}

    def arguments(self, config: UserConfig) -> dict[str, Any]:
        """The engine's arguments beside model and name.

        Raises:
            ConfigError: naming the key, the value and the fix.
        """
        return dict(config.engine_args)

    def get_default_config(self) -> dict[str, Any]:
        """What holds where a user configuration says nothing; beyond it, the engine's own defaults hold."""
        return user.defaults()

    def validate_config(self, user_config: Mapping[str, Any]) -> tuple[bool, str | None]:
        """(True, None), or (False, message)."""
        try:
            self.build_config(user_config)
        except ConfigError as error:
            return False, str(error)
        return True, None

    def build_config(self, user_config: Mapping[str, Any]) -> dict[str, Any]:
        """The engine's arguments by their Python names, with ``model`` and ``served_model_name``.

        A token for the hub is in the result as a ``SecretStr``.

        Raises:
            ConfigError: naming the key, the value and the fix.
        """
        config = user.validate(user_config, self.decided)
        token = {} if config.hf_token is None else {"hf_token": config.hf_token}
        return {"model": config.model_source, "served_model_name": config.model, **token, **self.arguments(config)}
