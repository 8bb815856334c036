"""All that is found out about an image, before anything is done with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from images import revision
from images.daemon import Daemon, Image
from images.inside import Facts, Inside, facts, parse, said
from images.tags import REVISION, check, tags
from ray_serve_cai.node.manifest import Manifest


@dataclass(frozen=True)
class Known:
    """All that was found out about an image. ``notes`` say which tag it does not get, and why."""

    name: str
    image: Image
    inside: Inside
    facts: Facts
    manifest: Manifest
    tags: list[str]
    notes: list[str]

    @property
    def repository(self) -> str:
        """The name without its tag or digest; a port of a registry is no tag."""
        name = self.name.partition("@")[0]
        head, _, tail = name.rpartition(":")
        return head if head and "/" not in tail else name

    def as_json(self) -> str:
        told = {
            "image": self.name,
            "id": self.image.id,
            "build_id": self.manifest.build_id,
            "size": self.image.size,
            "revision": self.image.labels[REVISION],
            **asdict(self.facts),
            "device": self.facts.device,
            "tags": self.tags,
            "notes": self.notes,
        }
        return json.dumps(told, indent=2)


def learn(daemon: Daemon, name: str) -> Known:
    """Look into an image.

    Raises:
        ContradictionError: it says of itself what is not so.
        ImageError: it is not there, or cannot be looked into.
    """
    image = daemon.image(name)
    inside = parse(name, daemon.probe(name))
    found, manifest = facts(name, inside), said(name, inside)
    check(name, found, image.labels, manifest, image.created)
    commit = image.labels[REVISION]
    note = revision.doubt(commit, found.image, manifest.build_id)
    return Known(name, image, inside, found, manifest, tags(found, "" if note else commit, image.created), [note] if note else [])
