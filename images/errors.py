"""What tagging and measuring images can end with. Every error says the fact, the value and the fix; codes are those of sysexits.h."""

from __future__ import annotations

from typing import ClassVar


class ImageError(Exception):
    """Base of these errors; EX_SOFTWARE: a container or an archive is not what it must be."""

    exit_code: ClassVar[int] = 70


class UsageError(ImageError):
    """EX_USAGE: the command line cannot be used."""

    exit_code = 64


class ContradictionError(ImageError):
    """EX_DATAERR: what an image says of itself is not what is in it, or a generated page is not what it must be."""

    exit_code = 65


class NoImageError(ImageError):
    """EX_NOINPUT: there is no such image, no such file, or no such commit in this clone."""

    exit_code = 66


class DaemonError(ImageError):
    """EX_UNAVAILABLE: Docker does not answer."""

    exit_code = 69


class OutputError(ImageError):
    """EX_CANTCREAT: a file cannot be written."""

    exit_code = 73
