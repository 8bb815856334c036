"""What a failed build says, in one line: the fact, the value and the fix, from what BuildKit, uv, pip and apt printed.

The patterns were read off real failures: tests/unit/images/logs holds them (uv 0.13, pip 23, apt 2.6, BuildKit of Docker 26).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BUILD, DISK, UNREACHABLE, PINS = 70, 74, 69, 78
"""Exit codes as in sysexits.h: EX_SOFTWARE, EX_IOERR, EX_UNAVAILABLE, EX_CONFIG."""
CHARACTERS = 700


class BuildError(RuntimeError):
    """The build cannot be done; the text is for a person. Exit codes are those of sysexits.h."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Explanation:
    """One line for a person, and the exit code that goes with it."""

    line: str
    exit_code: int


@dataclass(frozen=True)
class Failure:
    """The step of a build that failed and what it printed; without a step, all that a single program printed."""

    step: str
    said: str


_PREFIX = re.compile(r"^(?:#\d+ )?\d+\.\d+ ", re.MULTILINE)
_ERROR = re.compile(r"^#(\d+) ERROR: (.*)$", re.MULTILINE)
_COMMAND = re.compile(r'^process ".*" did not complete successfully: ')
_STAGE = re.compile(r"^\[(?:\S+ )?([^\s/]+)(?: +\d+/\d+)?\] ")
_TROUBLE = re.compile(r"error|fail|cannot|could not|couldn't|unable|no such|not found|denied|invalid|unknown", re.IGNORECASE)
_INDEX = "set pip's index-url to an index that this machine reaches (pip config set global.index-url URL)."
_PYTORCH = "name an index that has its CPU builds in PIP_EXTRA_INDEX_URL, or a directory that has them in pip's find-links."
_SERVERS = r"(dns error|Connection refused|Connection reset|[^\n:]*timed out|Network is unreachable|HTTP status [^\n]*?\))"
_SOCKETS = (
    r"(?:HTTPS?Connection|'ProxyError|NewConnectionError|ConnectTimeoutError).*?(Name or service not known|Temporary failure in name "
    r"resolution|Connection refused|timed out|Network is unreachable|Cannot connect to proxy)[^\n]*?: "
)
_RULES: tuple[tuple[str, str, int], ...] = (
    (
        r"no space left on device|disk quota exceeded",
        "the disk is full; free some space (docker system df; docker builder prune) and build again.",
        DISK,
    ),
    (
        r"Cannot connect to the Docker daemon at (\S+?)\.? Is|failed to connect to the docker API at ([^\s;]+)",
        "no Docker daemon answers at {0}; start it, or run: compose/docker-engine.sh",
        UNREACHABLE,
    ),
    (
        r"^(\S+): failed to resolve source metadata for \S+: (?:failed to do request: \w+ \"[^\"]*\": )?([^\n]+)",
        "the base image {0} cannot be pulled: {1}; make it or load it (images/base.sh, docker load), or set BASE_IMAGE.",
        UNREACHABLE,
    ),
    (
        r"failed to (?:copy|do request): [^\n]*?(?:Get|Head) \"([^\"]+)\": ([^\n]+)",
        "the registry broke off at {0}: {1}; try again, or load the base image with docker load.",
        UNREACHABLE,
    ),
    (
        r"(?:invalid peer certificate: (?:Other\(OtherError\()?(\w+)|certificate verify failed: ([^(\n]+))",
        "a server's certificate is not trusted here ({0}); name the CA bundle of this network in SSL_CERT_FILE.",
        UNREACHABLE,
    ),
    (
        r"Hash mismatch for `([^`]+)`.*?Expected:\s*(\S+).*?Computed:\s*(\S+)",
        "{0} is not the file that images/locks names: expected {1}, got {2}; mend the index, or lock what it has: make locks",
        PINS,
    ),
    (
        r"In `--require-hashes` mode, all requirements must have a hash, but none were provided for: ([^\n]+)",
        "images/locks has {0} without a hash; make the locks anew: make locks",
        PINS,
    ),
    (
        r"An index \((\S+?pytorch\.org\S+)\) returned a (\d+ [\w ]+?) error",
        "PyTorch's own index {0} refuses: {1}; " + _PYTORCH,
        UNREACHABLE,
    ),
    (
        r"(?:Failed to fetch: |error sending request for url \()(https?://[^\s/]*pytorch\.org/[^\s)`]+).*?" + _SERVERS,
        "PyTorch's own index does not answer: {0}: {1}; " + _PYTORCH,
        UNREACHABLE,
    ),
    (
        _SOCKETS + r"(/whl/cpu/\S+)",
        "PyTorch's own index does not answer pip at {1}: {0}; " + _PYTORCH,
        UNREACHABLE,
    ),
    (
        r"An index \((\S+)\) returned a (\d+ [\w ]+?) error",
        "the package index {0} refuses: {1}; check its address and password, or " + _INDEX,
        UNREACHABLE,
    ),
    (
        r"(?:Failed to fetch: |error sending request for url \()(https?://[^\s)`]+).*?" + _SERVERS,
        "the package index does not answer: {0}: {1}; " + _INDEX,
        UNREACHABLE,
    ),
    (
        _SOCKETS + r"(/\S+)",
        "the package index does not answer pip at {1}: {0}; " + _INDEX,
        UNREACHABLE,
    ),
    (
        r"^W: (https://\S+): No system certificates available",
        "the base image has no certificates with which to check the package archive {0}; name a CA bundle in SSL_CERT_FILE, "
        "or give an http:// address in DEBIAN_MIRROR.",
        UNREACHABLE,
    ),
    (
        r"^[WE]: Failed to fetch (https://\S+)\s+Certificate verification failed: ([^\n]+?)\s+Could not handshake",
        "the certificate of the package archive {0} is not trusted here ({1}); name the CA bundle of this network in SSL_CERT_FILE, "
        "or give an http:// address in DEBIAN_MIRROR.",
        UNREACHABLE,
    ),
    (
        r"\A(?!.*^Err:\d+ \S+ [a-z]+(?:-updates)? ).*^Err:\d+ (https?://\S+) \S+-security Release\n\s+(404\s+Not Found)",
        "the package archive has no security updates at {0}: {1}; name their address in DEBIAN_SECURITY_MIRROR (unless set, it is that of "
        "DEBIAN_MIRROR and -security), or set it to nothing to go without.",
        UNREACHABLE,
    ),
    (
        r"(?:Err|Ign):\d+ (https?://\S+) [^\n]*\n\s+([^\n]+).*?does not have a Release file",
        "the distribution's package archive does not answer: {0}: {1}; check DEBIAN_MIRROR and its password, or the network.",
        UNREACHABLE,
    ),
    (
        r"[WE]: Failed to fetch (\S+)\s+([^\n]+)",
        "the distribution's package archive does not answer: {0}: {1}; check the network and the base image's apt sources.",
        UNREACHABLE,
    ),
    (
        r"cause: Because (?:there is no version of (\S+)|(\S+) was not found in the package registry|(\S+) was not found in the provided "
        r"package locations) and (?:you require|\S+ depends on) \S+, we can conclude that your requirements are unsatisfiable",
        "no index and no directory of wheels here has {0}, which is pinned; name one in pip's index-url, extra-index-url or find-links, "
        "or change the pin in images/versions.json and run: make locks",
        PINS,
    ),
    (
        r"No solution found when resolving dependencies[^\n]*\n\s*cause: (.+?)"
        r"(?:we can conclude that your requirements are unsatisfiable|\n\n|\Z)",
        "the pinned versions do not go together: {0}; change images/versions.json, then run: make locks",
        PINS,
    ),
    (
        r"ERROR: Cannot install (.+?) because these package versions have conflicting dependencies",
        "the pinned versions do not go together: {0}; change images/versions.json.",
        PINS,
    ),
    (
        r"ERROR: No matching distribution found for (\S+)",
        "no index has {0}, which images/versions.json pins as a build tool; change the pin, or " + _INDEX,
        PINS,
    ),
    (
        r"E: (?:Unable to locate package (\S+)|Package '([^']+)' has no installation candidate)",
        "the base image's archive has no package {0}; set BASE_IMAGE to Debian 12, or to a base that has it.",
        PINS,
    ),
    (r"^(\S+ \S+ is installed and versions\.json pins [^\n]+)", "{0}", PINS),
    (
        r"^the Python of the base image is (\S+); 3\.11\.1 or newer is needed",
        "the base image has Python {0}, and torch needs 3.11.1 or newer; set BASE_IMAGE to Debian 12, or to a base with a newer one.",
        PINS,
    ),
    (
        r"failed to (?:create endpoint|set up container networking)[^\n]*",
        "Docker could not connect a build step to its network; see the log, and restart Docker if that happens again.",
        BUILD,
    ),
    (r"^(Python \S+ is in the image and versions\.json wants [^\n]+)", "{0}; set BASE_IMAGE to one with that Python.", PINS),
    (r"^(torch \S+ is built for CUDA [^\n]+)", "{0}; correct images/versions.json, then run: make locks", PINS),
    (
        r"exit code: 137|signal: killed|out of memory|Cannot allocate memory|MemoryError",
        "{step} was killed, most likely for memory; give Docker 8 GiB or more, and build one image at a time.",
        BUILD,
    ),
)
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL | re.MULTILINE), line, code) for pattern, line, code in _RULES)


def explain(log: str) -> Explanation:
    """The known cause of a failure; else the step that failed and its last words.

    ``log`` is BuildKit's plain progress, or what a single program printed, such as the resolver of ``make locks``.
    """
    failed = failure(log)
    for pattern, line, code in _COMPILED:
        if found := pattern.search(failed.said):
            values = [" ".join(value.split()).rstrip(" .,;") for value in found.groups() if value]
            return Explanation(_bounded(line.format(*values, step=f"the step {failed.step}" if failed.step else "a step")), code)
    where = f"the step {failed.step} failed" if failed.step else "the build failed"
    return Explanation(_bounded(f"{where}: {_last_words(failed.said)}"), BUILD)


def failure(log: str) -> Failure:
    """The first step that failed. Others that ran beside it are left out: what they print is no cause of anything."""
    error = _ERROR.search(log)
    if not error:
        return Failure("", _PREFIX.sub("", log).strip())
    number, reason = error.groups()
    name = re.search(rf"^#{number} (\[.*)$", log, re.MULTILINE)
    stage = _STAGE.match(name[1]) if name else None
    printed = re.findall(rf"^#{number} \d+\.\d+ (.*)$", log, re.MULTILINE)
    last = re.findall(r"^ERROR: failed to solve: (.*)$", log, re.MULTILINE)
    reasons = [_COMMAND.sub("", reason)] if _COMMAND.match(reason) else last or [reason]
    return Failure(stage[1] if stage else "", "\n".join([*printed, *reasons]))


def _last_words(text: str) -> str:
    """The last line that speaks of trouble, or the last of all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    *printed, reason = lines or [""]
    troubled = [line for line in printed if _TROUBLE.search(line)]
    return f"{(troubled or printed)[-1]} ({reason})" if printed else reason or "it printed nothing"


def _bounded(line: str) -> str:
    """On one line of bearable length; the end stays, since it says what to do."""
    line = " ".join(line.split())
    return line if len(line) <= CHARACTERS else f"{line[: CHARACTERS - 153]}... {line[-149:]}"
