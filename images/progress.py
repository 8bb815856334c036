"""What a build is doing, from BuildKit's plain progress: a line where a phase starts work and one where it is done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PHASES = {
    "os-cpu": "operating system",
    "os-cuda": "compilers",
    "tools": "build tools",
    "torch": "torch ({engine})",
    "engine-wheels": "engine ({engine})",
    "ray": "Ray ({engine})",
    "jupyter": "notebook gateway ({engine})",
    "variant-cai": "Cloudera AI runtime ({image})",
    "package": "package",
    "collecting-debs": "Debian packages",
    "collecting-tool-wheels": "build tools' wheels",
    "collecting-wheels": "wheels",
    "bill": "bill of materials ({image})",
    "assembled": "imports and manifest ({image})",
}
"""Stage of images/Dockerfile -> what is said of it; a stage that several images share is not called by the name of one."""
_STEP = re.compile(r"^#(\d+) \[(?:(\S+) )?([^\s/]+)(?: +\d+/\d+)?\] (?:RUN|COPY|FROM)")
_OUTPUT = re.compile(r"^#(\d+) \d+\.\d+ ")
_DONE = re.compile(r"^#(\d+) DONE (\d+)\.\d+s")
_EXPORT = re.compile(r"^#(\d+) (?:\[(\S+)\] )?exporting to image")


def progress(lines: Iterable[str], image: str) -> Iterator[str]:
    """A phase once when it first prints something, and its seconds when it took one or more. What was kept from before is not said.

    ``image`` is the one that is meant where the lines name none, as they do not where only one is built.
    """
    steps: dict[str, str] = {}
    said: set[str] = set()
    for line in lines:
        if step := _STEP.match(line):
            number, of, stage = step[1], step[2] or image, step[3]
            if stage in PHASES:
                steps.setdefault(number, PHASES[stage].format(image=of, engine=of.removesuffix("-cai")))
        elif export := _EXPORT.match(line):
            steps.setdefault(export[1], f"writing the image ({export[2] or image})")
        elif (output := _OUTPUT.match(line)) and output[1] in steps and steps[output[1]] not in said:
            said.add(steps[output[1]])
            yield f"{steps[output[1]]} ..."
        elif (done := _DONE.match(line)) and done[1] in steps and int(done[2]) >= 1:
            yield f"{steps[done[1]]}: {done[2]} s"
