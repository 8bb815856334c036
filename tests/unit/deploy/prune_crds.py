"""Custom resource definitions -> crds.json: what a manifest is checked by, without descriptions, each repeated part once.

    python tests/unit/deploy/prune_crds.py NAME=FILE ... > tests/unit/deploy/crds.json

NAME says where FILE, a CRD in YAML, is from: ``kuberay v1.7.0``. Of its versions the one that is stored is taken. The result is JSON
Schema in which an unknown field is an error unless the CRD preserves unknown fields, as `kubectl apply` with strict validation has it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

KEPT = ("type", "required", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")
LEAST = 120
"""Characters of a part that is worth a name of its own."""

Schema = dict[str, Any]


def pruned(schema: Schema) -> Schema:
    """What validates, of a structural schema (Kubernetes, "Extend the API with CustomResourceDefinitions")."""
    made: Schema = {name: schema[name] for name in KEPT if name in schema}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if isinstance(schema.get("items"), dict):
        made["items"] = pruned(schema["items"])
    if schema.get("type") != "object":
        return made
    if schema.get("properties"):
        made["properties"] = {name: pruned(part) for name, part in sorted(schema["properties"].items())}
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        made["additionalProperties"] = pruned(values)
    elif not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


def of_crd(file: Path) -> tuple[str, Schema]:
    """The kind, and its schema; the API server knows an object's own metadata."""
    crd = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = next(one for one in crd["spec"]["versions"] if one["storage"])
    schema = pruned(version["schema"]["openAPIV3Schema"])
    properties = schema["properties"]
    properties["apiVersion"] = {"enum": [f"{crd['spec']['group']}/{version['name']}"]}
    properties["kind"] = {"enum": [crd["spec"]["names"]["kind"]]}
    properties["metadata"] = {"type": "object"}
    del properties["status"]
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return crd["spec"]["names"]["kind"], schema


def parts(schema: Any) -> list[str]:
    """Every object in a schema, written out."""
    if isinstance(schema, list):
        return [text for part in schema for text in parts(part)]
    if not isinstance(schema, dict):
        return []
    return [written(schema), *(text for part in schema.values() for text in parts(part))]


def written(schema: Any) -> str:
    return json.dumps(schema, separators=(",", ":"), sort_keys=True)


def shared(schema: Any, names: dict[str, str], *, top: bool = False) -> Any:
    """The schema with a reference in place of each part that has a name."""
    if isinstance(schema, list):
        return [shared(part, names) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if not top and (name := names.get(written(schema))):
        return {"$ref": f"#/$defs/{name}"}
    return {key: shared(part, names) for key, part in schema.items()}


def lines(named: Mapping[Any, Any]) -> str:
    """An object, a line for each of its values."""
    return "{\n" + ",\n".join(f'"{key}": {written(value)}' for key, value in named.items()) + "\n}"


def main(arguments: list[str]) -> None:
    sources = dict(argument.split("=", 1) for argument in arguments)
    kinds = dict(of_crd(Path(file)) for file in sources.values())
    seen = Counter(text for schema in kinds.values() for text in parts(schema))
    again = [text for text, times in seen.items() if times > 1 and len(text) > LEAST and json.loads(text).get("type") == "object"]
    names = {text: f"part{number}" for number, text in enumerate(sorted(again, key=lambda text: (-len(text), text)), 1)}
    document: dict[str, Mapping[Any, Any]] = {
        "sources": dict(enumerate(sources, 1)),
        "kinds": {kind: shared(schema, names) for kind, schema in kinds.items()},
        "$defs": {name: shared(json.loads(text), names, top=True) for text, name in names.items()},
    }
    print("{\n" + ",\n".join(f'"{group}": {lines(named)}' for group, named in document.items()) + "\n}")


if __name__ == "__main__":
    main(sys.argv[1:])
