"""What the API takes and gives. int64 comes as a string, an application's environment as a JSON string or an object; both are read.

Facts: the Swagger of APIv2, 26.06. Unknown fields of answers are left alone, since newer platforms have more.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

SUBDOMAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""One label of a host name."""


def _environment(value: Any) -> Any:
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else {}
    if value is not None and not isinstance(value, dict):
        raise ValueError("the environment is no object")
    return {} if value is None else {str(name): "" if text is None else str(text) for name, text in value.items()}


Environment = Annotated[dict[str, str], BeforeValidator(_environment)]


class Answer(BaseModel):
    """Base of what the API gives."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_said(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class Status(str, Enum):
    """Of an application."""

    UNKNOWN = "APPLICATION_UNKNOWN"
    STARTING = "APPLICATION_STARTING"
    RUNNING = "APPLICATION_RUNNING"
    STOPPING = "APPLICATION_STOPPING"
    STOPPED = "APPLICATION_STOPPED"
    FAILED = "APPLICATION_FAILED"

    @property
    def word(self) -> str:
        """For people: ``running``."""
        return self.value.removeprefix("APPLICATION_").lower()


class Application(Answer):
    """An application as it is; ``cpu`` in cores, ``memory`` in GB."""

    id: str
    name: str
    subdomain: str = ""
    description: str = ""
    script: str = ""
    status: Status = Status.UNKNOWN
    cpu: float = 0
    memory: float = 0
    nvidia_gpu: int = 0
    environment: Environment = Field(default_factory=dict, repr=False)
    bypass_authentication: bool = False
    runtime_identifier: str = ""
    accelerator_label_id: str = ""
    running_at: str = ""

    @property
    def running(self) -> bool:
        return self.status is Status.RUNNING

    @field_validator("status", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        """Statuses that newer platforms may have are unknown ones; older ones leave out the prefix or write it small."""
        text = str(value).upper()
        text = text if text.startswith("APPLICATION_") else f"APPLICATION_{text}"
        return text if text in {status.value for status in Status} else Status.UNKNOWN


class ApplicationRequest(BaseModel):
    """What creates or changes an application; what is None is left out. There is no kernel: a runtime has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    subdomain: str
    script: str
    cpu: float
    memory: float
    runtime_identifier: str
    nvidia_gpu: int = 0
    description: str = ""
    environment: dict[str, str] = Field(default_factory=dict, repr=False)
    bypass_authentication: bool = False
    runtime_addon_identifiers: list[str] | None = None
    accelerator_label_id: str | None = None
    resource_group_id: str | None = None
    resource_profile_id: str | None = None

    @field_validator("subdomain")
    @classmethod
    def _one_label(cls, value: str) -> str:
        if not SUBDOMAIN.fullmatch(value) or len(value) > 63:
            raise ValueError(f"{value!r} cannot stand in a host name; use small letters, digits and single dashes, at most 63")
        return value

    def body(self) -> dict[str, Any]:
        """As the API takes it."""
        return self.model_dump(exclude_none=True)

    def changes(self) -> dict[str, Any]:
        """The same for an application that is there: what it is not to have any more is said."""
        return {"accelerator_label_id": "", **self.body()}


class Runtime(Answer):
    """A runtime of the workspace's catalog."""

    image_identifier: str
    editor: str = ""
    kernel: str = ""
    edition: str = ""
    full_version: str = ""
    short_version: str = ""
    status: str = ""


class RuntimeCheck(Answer):
    """What the API says of an image that is to become a runtime."""

    validation_success: bool = False
    insert_success: bool = False
    reason: str = ""


class Project(Answer):
    """A project; ``shared_memory_limit`` in MB."""

    id: str
    name: str = ""
    default_project_engine_type: str = ""
    environment: Environment = Field(default_factory=dict, repr=False)
    shared_memory_limit: int = 0


class NodeLabel(Answer):
    """A kind of GPU node."""

    id: str
    label_key: str = ""
    label_value: str = ""
    availability: bool = True
    max_gpu_per_workload: int = 0


class File(Answer):
    """A file of a project."""

    path: str
    is_dir: bool = False
    file_size: int = 0
