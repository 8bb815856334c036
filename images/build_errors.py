"""What a failed build says, in one line: the fact, the value and the fix, from the log of BuildKit, uv, pip and apt."""

from __future__ import annotations

import re
from dataclasses import dataclass

BUILD, DISK, UNREACHABLE, PINS = 70, 74, 69, 78
"""Exit codes as in sysexits.h: EX_SOFTWARE, EX_IOERR, EX_UNAVAILABLE, EX_CONFIG."""


@dataclass(frozen=True)
class Explanation:
    """One line for a person, and the exit code that goes with it."""

    line: str
    exit_code: int


_TIMED = re.compile(r"^(?:#\d+ )?(?:\d+\.\d+ )?", re.MULTILINE)
_STEP = re.compile(r"^ > \[([^\]]+)\]", re.MULTILINE)
_RULES: tuple[tuple[re.Pattern[str], str, int], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), line, code)
    for pattern, line, code in (
        (
            r"no space left on device",
            "the disk is full; free some space (docker system df; docker builder prune) and build again.",
            DISK,
        ),
        (
            r"invalid peer certificate: (\w+)|certificate verify failed|x509: certificate signed by unknown authority",
            "a server's certificate is not trusted ({0}); name your CA bundle in SSL_CERT_FILE.",
            UNREACHABLE,
        ),
        (
            r"Hash mismatch for `([^`]+)`.*?Expected:\s*(\S+).*?Computed:\s*(\S+)",
            "{0} is not the file that images/locks names: expected {1}, got {2}; check the index, or run: make locks",
            PINS,
        ),
        (
            r"failed to do request: [^\n]*?lookup (\S+) on|failed to resolve source metadata for (\S+):",
            "the base image cannot be had: no registry answers ({0}); load it with docker load, run images/base.sh, or set BASE_IMAGE.",
            UNREACHABLE,
        ),
        (
            r"(?:Failed to fetch: |error sending request for url \()(?P<url>[^\s)]+)\)?"
            r".*?(dns error|Connection refused|connection reset|operation timed out|tcp connect error)",
            "the package index does not answer ({1}): {0}; set pip's index-url to one that this machine reaches.",
            UNREACHABLE,
        ),
        (
            r"W: Failed to fetch (\S+)\s+(?:Could not|Cannot|Temporary|Unable|Connection)([^\n]*)",
            "the distribution's package archive does not answer: {0}; check the network and the base image's apt sources.",
            UNREACHABLE,
        ),
        (
            r"No solution found when resolving dependencies[^\n]*\n\s*cause: ([^\n]+)(?:\n\s+And because ([^\n]+))?",
            "the pins do not go together: {0} {1} Change images/versions.json, then run: make locks",
            PINS,
        ),
        (
            r"ERROR: No matching distribution found for (\S+)",
            "no index has {0}, which images/versions.json pins as a build tool; change the pin, or set pip's index-url.",
            PINS,
        ),
        (
            r"E: Unable to locate package (\S+)|E: Package '([^']+)' has no installation candidate",
            "the base image's archive has no package {0}; use a Debian 12 or Ubuntu 22.04 base (BASE_IMAGE), or add the right archive.",
            PINS,
        ),
        (r"(\S+ \S+ is installed and versions\.json pins [^\n]+)", "{0}", PINS),
        (r"(Python \S+ is in the image and versions\.json wants [^\n]+)", "{0}; set BASE_IMAGE to one with that Python.", PINS),
        (r"(torch \S+ is built for CUDA [^\n]+)", "{0}", PINS),
        (
            r"exit code: 137|signal: killed",
            "a build step was killed, most likely for memory; give Docker 8 GiB or more, and build one image at a time.",
            BUILD,
        ),
    )
)


def explain(log: str) -> Explanation:
    """The first known cause in a build's log; else the step that failed and its last words."""
    text = _TIMED.sub("", log)
    for pattern, line, code in _RULES:
        if found := pattern.search(text):
            values = [value.strip() for value in found.groups() if value] or [found[0]]
            return Explanation(" ".join(line.format(*values, "").split()), code)
    step = _STEP.search(text)
    words = _last_words(text)
    return Explanation(f"the step {step[1]} failed: {words}" if step else f"the build failed: {words}", BUILD)


def _last_words(text: str) -> str:
    """The last line that the failed step printed, or the last of all."""
    section = text.rpartition("------\n > ")[2].partition("\n------")[0] if "------\n > " in text else text
    lines = [line.strip() for line in section.splitlines()[1 if section is not text else 0 :] if line.strip()]
    return lines[-1] if lines else "it printed nothing"
