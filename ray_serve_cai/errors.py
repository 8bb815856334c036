"""The exception tree. Every error says the fact, the value and the fix, and carries its exit code.

    RayServeCaiError            70  EX_SOFTWARE
    ├── UsageError              64  EX_USAGE: a flag or an environment variable has an impossible value
    ├── ModelNotFoundError      66  EX_NOINPUT: no model at the path or under the id given
    ├── UnavailableError        69  EX_UNAVAILABLE: the head or a service is out of reach
    │   ├── HubError                69  the model hub is out of reach
    │   └── PlatformDownError       69  Cloudera AI does not answer, or only with errors of its own
    ├── EngineError             70  EX_SOFTWARE: the engine did not start or died
    ├── HookError               70  EX_SOFTWARE: a hook of the site failed
    ├── PlatformError           70  EX_SOFTWARE: Cloudera AI answers in a way that cannot be used
    │   ├── PlatformAccessError     77  EX_NOPERM: the API key is refused, or may not do this
    │   ├── PlatformMissingError    66  EX_NOINPUT: Cloudera AI has no such project, application, runtime or file
    │   └── PlatformRefusedError    78  EX_CONFIG: Cloudera AI does not take what it was asked
    ├── ResourceError           71  EX_OSERR: a port in use, no memory, no shared memory, no room for a replica
    ├── SessionChangedError     75  EX_TEMPFAIL: the head is another one than the one that was joined
    ├── TokenError              77  EX_NOPERM: a cluster token is missing or wrong
    └── ConfigError             78  EX_CONFIG: a configuration file, an engine name or argument
        ├── VersionMismatchError    78  this node and the head differ in something that must be equal
        ├── TlsError                78  certificates that nodes would refuse, or a head that does not use TLS where this node does
        └── AddressTakenError       78  another node of the cluster has this node's address

The codes are those of sysexits.h.
"""

from __future__ import annotations

from typing import ClassVar

LINE_CHARACTERS = 600


def one_line(error: BaseException) -> str:
    """What somebody else's exception says, in one line of bearable length."""
    line = " ".join(str(error).split())
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 3] + "..."


def counted(number: float, name: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number:g} {name}{'' if number == 1 else 's'}"


def sized(count: int) -> str:
    """Bytes as people read them: ``1.5 GiB``, ``300 MiB``, ``38 KiB``, ``12 bytes``."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    if count >= 1 << 20:
        return f"{count >> 20} MiB"
    return f"{count >> 10} KiB" if count >= 1 << 10 else counted(count, "byte")


class RayServeCaiError(Exception):
    """Base of all errors that the package raises on purpose; ``str()`` is one readable line."""

    exit_code: ClassVar[int] = 70


class UsageError(RayServeCaiError):
    """A flag or an environment variable has a value that cannot be used."""

    exit_code = 64


class ModelNotFoundError(RayServeCaiError):
    """There is no model at the path, or under the Hugging Face id, that was given."""

    exit_code = 66


class UnavailableError(RayServeCaiError):
    """Something that must answer over the network did not, within its time."""

    exit_code = 69


class HubError(UnavailableError):
    """The model hub does not answer, or not as it should."""


class PlatformDownError(UnavailableError):
    """Cloudera AI does not answer, or only with errors of its own."""


class PlatformError(RayServeCaiError):
    """Cloudera AI answers in a way that cannot be used."""


class PlatformAccessError(PlatformError):
    """The API key is refused, or may not do this."""

    exit_code = 77


class PlatformMissingError(PlatformError):
    """Cloudera AI has no such project, application, runtime or file."""

    exit_code = 66


class PlatformRefusedError(PlatformError):
    """Cloudera AI does not take what it was asked: a field, a name that is taken, a quota."""

    exit_code = 78


class EngineError(RayServeCaiError):
    """The engine did not start, or died while serving."""


class HookError(RayServeCaiError):
    """A program of the hooks' directory failed."""


class ResourceError(RayServeCaiError):
    """The machine, or the cluster, lacks something: a free port, memory, shared memory, room for a replica."""

    exit_code = 71


class SessionChangedError(RayServeCaiError):
    """The head was replaced since this node joined it; joining again is the cure."""

    exit_code = 75


class TokenError(RayServeCaiError):
    """The cluster token is missing, unreadable or refused."""

    exit_code = 77


class ConfigError(RayServeCaiError):
    """The configuration names something that does not exist or does not fit together."""

    exit_code = 78


class VersionMismatchError(ConfigError):
    """Two nodes differ in a version that must be equal across the cluster."""


class TlsError(ConfigError):
    """The certificates for TLS between nodes cannot be used, or only one of node and head uses TLS."""


class AddressTakenError(ConfigError):
    """Another node of the cluster has the address under which this one would be known."""


ERRORS_BY_NAME: dict[str, type[RayServeCaiError]] = {
    cls.__name__: cls
    for cls in (
        RayServeCaiError,
        UsageError,
        ModelNotFoundError,
        UnavailableError,
        HubError,
        EngineError,
        HookError,
        ResourceError,
        SessionChangedError,
        TokenError,
        ConfigError,
        VersionMismatchError,
        TlsError,
        AddressTakenError,
        PlatformDownError,
        PlatformError,
        PlatformAccessError,
        PlatformMissingError,
        PlatformRefusedError,
    )
}
"""For errors that travel between processes as a name and a message."""


def by_exit_code(code: int) -> type[RayServeCaiError]:
    """The most general error that leaves with this code; the base class for a code of nobody's."""
    return next((cls for cls in ERRORS_BY_NAME.values() if cls.exit_code == code), RayServeCaiError)
