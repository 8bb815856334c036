"""The API of Cloudera AI as far as this project uses it: state, and strict answers. No sockets: `server.py` serves it, unit tests call it.

Which behaviours are from documentation, which from reports and which assumed stands beside each rule: [doc], [report], [assumed].
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "key-of-a-person.0123456789abcdef"
PROJECT = "abcd-1234-efgh-5678"
MOST_PER_PAGE = 100
"""[assumed] The Swagger names no limit; a larger page is refused here, so that nobody counts on one."""
SUBDOMAIN = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
CREATE = {
    "name": str,
    "subdomain": str,
    "description": str,
    "script": str,
    "cpu": (int, float),
    "memory": (int, float),
    "nvidia_gpu": int,
    "environment": dict,
    "bypass_authentication": bool,
    "runtime_identifier": str,
    "runtime_addon_identifiers": list,
    "accelerator_label_id": str,
    "resource_group_id": str,
    "resource_profile_id": str,
    "kernel": str,
}
"""[doc] Fields of CreateApplicationRequest; others are refused [report]."""
REQUIRED = ("name", "subdomain", "script", "runtime_identifier")


@dataclass
class Reply:
    """Status, JSON (or text), headers."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> str:
        """As it is sent; text is sent as it is."""
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


class Refusal(Exception):
    """An error in the API's form: ``{error, code, message, details}`` [doc]; ``code`` is gRPC's."""

    def __init__(self, status: int, code: int, text: str, *details: str) -> None:
        super().__init__(text)
        self.reply = Reply(status, {"error": text, "code": code, "message": text, "details": list(details)})


class Nodes:
    """What runs behind applications. Here nothing does, and a status is what a test sets it to; containers do it for real."""

    shared_memory_mb = 0
    """The project's limit; 0 for the platform's own default."""

    def start(self, application: dict[str, Any]) -> None:
        application["status"] = "APPLICATION_RUNNING"

    def stop(self, application: dict[str, Any]) -> None:
        application["status"] = "APPLICATION_STOPPED"

    def refresh(self, application: dict[str, Any]) -> None:
        """Bring the status up to date."""

    def url(self, application: dict[str, Any]) -> str | None:
        """Where the application's published port is, if it has one."""
        return None

    def reply(self, application: dict[str, Any]) -> Reply:
        """What the application's address answers where there is no port [doc: a 502]."""
        return Reply(502, "bad gateway")


@dataclass
class Platform:
    """A workspace with one project."""

    nodes: Nodes = field(default_factory=Nodes)
    shared_memory_mb: int = 0
    project_environment: dict[str, str] = field(default_factory=dict)
    runtimes: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    administrator: bool = False
    applications: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: MutableMapping[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Callable[[str, str], Reply | None]] = field(default_factory=list)
    """Asked first, in order; one that gives a reply answers in place of the platform."""

    def __post_init__(self) -> None:
        self._moment = 0
        self._ids = (f"app-{number:04d}" for number in itertools.count(1))

    def fail(self, times: int, reply: Reply, method: str = "", part: str = "") -> None:
        """Answer the next requests of a method and path with a fault."""
        left = [times]

        def fault(asked: str, path: str) -> Reply | None:
            if left[0] and asked.startswith(method) and part in path:
                left[0] -= 1
                return reply
            return None

        self.faults.append(fault)

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """What the API says to one request."""
        parts = urlsplit(url)
        path, query = parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.requests.append((method, path))
        for fault in self.faults:
            if reply := fault(method, path):
                return reply
        try:
            if headers.get("authorization") != f"Bearer {KEY}":
                raise Refusal(401, 16, "authentication is required")
            return Reply(200, self._route(method, path, query, headers, body))
        except Refusal as refusal:
            return refusal.reply

    def _route(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> Any:
        for wanted, pattern, handler in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and wanted == method:
                names = {name: unquote(value) for name, value in found.groupdict().items()}
                if names.pop("project", PROJECT) != PROJECT:
                    raise Refusal(404, 5, "project not found")
                if method in {"POST", "PATCH"} and not headers.get("content-type", "").startswith("multipart/"):
                    names["body"] = _json(body)
                if handler is Platform.upload:
                    names["form"] = (headers.get("content-type", ""), body)
                if method == "GET":
                    names["query"] = query
                return handler(self, **names)
        if any(re.fullmatch(pattern, path) for _, pattern, _ in ROUTES):
            raise Refusal(405, 12, "Method Not Allowed")
        raise Refusal(404, 5, "Not Found")

    def list_applications(self, query: dict[str, str]) -> Any:
        for application in self.applications.values():
            self.nodes.refresh(application)
        return self._page("applications", [shown(one) for one in self.applications.values()], query)

    def create_application(self, body: dict[str, Any]) -> Any:
        _fields(body, CREATE, required=REQUIRED)
        if "kernel" in body:
            raise Refusal(400, 3, "kernel and runtime_identifier cannot both be set")  # [report]
        self._fits(body, "")
        application = {
            **{name: body.get(name, "") for name in ("name", "subdomain", "description", "script", "runtime_identifier")},
            "id": next(self._ids),
            "cpu": body.get("cpu", 1),
            "memory": body.get("memory", 1),
            "nvidia_gpu": body.get("nvidia_gpu", 0),
            "bypass_authentication": body.get("bypass_authentication", False),
            # [doc] The project's environment is copied at creation.
            "environment": {**self.project_environment, **body.get("environment", {})},
            "accelerator_label_id": body.get("accelerator_label_id", ""),
            "status": "APPLICATION_STARTING",
            "created_at": "2026-11-26T00:00:00Z",
        }
        self.applications[application["id"]] = application
        self._start(application)  # [doc] creating starts it
        return shown(application)

    def get_application(self, application: str, query: dict[str, str]) -> Any:
        found = self._application(application)
        self.nodes.refresh(found)
        return shown(found)

    def update_application(self, application: str, body: dict[str, Any]) -> Any:
        found = self._application(application)
        _fields(body, CREATE)
        self._fits(body, application)
        found.update(body)
        return shown(found)

    def delete_application(self, application: str) -> Any:
        self.nodes.stop(self._application(application))
        del self.applications[application]
        return {}

    def restart_application(self, application: str, body: dict[str, Any]) -> Any:
        found = self._application(application)
        self.nodes.stop(found)
        self._start(found)
        return {}

    def _start(self, application: dict[str, Any]) -> None:
        self._moment += 1
        application |= {"status": "APPLICATION_STARTING", "running_at": f"2026-11-27T00:00:{self._moment:02d}Z", "stopped_at": None}
        self.nodes.start(application)

    def stop_application(self, application: str, body: dict[str, Any]) -> Any:
        self.nodes.stop(self._application(application))
        return {}

    def get_project(self, query: dict[str, str]) -> Any:
        return {
            "id": PROJECT,
            "name": "models",
            "default_project_engine_type": "ml_runtime",
            "environment": json.dumps(self.project_environment),
            "shared_memory_limit": str(self.shared_memory_mb),
        }

    def update_project(self, body: dict[str, Any]) -> Any:
        _fields(body, {"shared_memory_limit": int, "environment": dict, "description": str})
        self.shared_memory_mb = self.nodes.shared_memory_mb = body.get("shared_memory_limit", self.shared_memory_mb)
        return self.get_project({})

    def list_runtimes(self, query: dict[str, str]) -> Any:
        return self._page("runtimes", self.runtimes, query)

    def register_runtime(self, body: dict[str, Any]) -> Any:
        _fields(body, {"url": str, "docker_credential_id": str}, required=("url",))
        if not self.administrator:
            raise Refusal(403, 7, "only administrators may add runtimes")
        if any(one["image_identifier"] == body["url"] for one in self.runtimes):
            return {"validation_success": True, "insert_success": False, "reason": "the runtime is registered already"}
        self.runtimes.append({"image_identifier": body["url"], "editor": "PBJ Workbench", "status": "ENABLED"})
        return {"validation_success": True, "insert_success": True, "reason": ""}

    def validate_runtime(self, query: dict[str, str]) -> Any:
        good = query.get("url", "").startswith("registry.example.com/")
        return {"validation_success": good, "reason": "" if good else "the image cannot be pulled"}

    def list_labels(self, query: dict[str, str]) -> Any:
        return {"accelerator_node_label": self.labels}

    def list_files(self, query: dict[str, str], path: str = "") -> Any:
        inside = f"{path}/" if path else ""
        found = [
            {"path": one, "is_dir": False, "file_size": str(len(content))} for one, content in self.files.items() if one.startswith(inside)
        ]
        if path and not found and path not in self.files:
            raise Refusal(404, 5, "file not found")
        return self._page("files", found, query)

    def upload(self, form: tuple[str, bytes]) -> Any:
        for path, content in _parts(*form):
            self.files[_free(path, self.files)] = content  # [doc] never overwrites
        return {}

    def delete_file(self, path: str) -> Any:
        if path not in self.files:
            raise Refusal(404, 5, "file not found")
        del self.files[path]
        return {}

    def _application(self, application: str) -> dict[str, Any]:
        if application not in self.applications:
            raise Refusal(404, 5, "application not found")
        return self.applications[application]

    def _fits(self, body: dict[str, Any], own: str) -> None:
        others = [one for key, one in self.applications.items() if key != own]
        if "subdomain" in body:
            if not SUBDOMAIN.fullmatch(body["subdomain"]):
                raise Refusal(400, 3, "subdomain is invalid", "use lower-case letters, digits and dashes")  # [doc]
            if any(one["subdomain"] == body["subdomain"] for one in others):
                raise Refusal(409, 6, f"subdomain {body['subdomain']} is already in use")  # [doc] unique in the workspace
        if any(one["name"] == body.get("name") for one in others):
            raise Refusal(409, 6, f"an application named {body['name']} already exists")  # [assumed]
        if "runtime_identifier" in body and not any(one["image_identifier"] == body["runtime_identifier"] for one in self.runtimes):
            raise Refusal(400, 3, f"runtime {body['runtime_identifier']} is not registered")  # [assumed]

    def _page(self, key: str, everything: list[dict[str, Any]], query: dict[str, str]) -> Any:
        size, token = query.get("page_size", "10"), query.get("page_token", "")
        if unknown := query.keys() - {"page_size", "page_token", "search_filter", "sort"}:
            raise Refusal(400, 3, f"unknown query parameter {sorted(unknown)[0]}")
        if not size.isdigit() or not 0 < int(size) <= MOST_PER_PAGE:
            raise Refusal(400, 3, f"page_size must be between 1 and {MOST_PER_PAGE}")
        if query.get("search_filter"):  # [doc] a JSON object; values match as substrings
            wanted = json.loads(query["search_filter"])
            everything = [one for one in everything if all(text in str(one.get(name, "")) for name, text in wanted.items())]
        start = int(base64.urlsafe_b64decode(token)) if token else 0
        end = start + int(size)
        following = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(everything) else ""
        return {key: everything[start:end], "next_page_token": following}


def shown(application: dict[str, Any]) -> dict[str, Any]:
    """As the API gives it: int64 as strings, the environment as a JSON string, no address [doc]."""
    return {**application, "nvidia_gpu": str(application["nvidia_gpu"]), "environment": json.dumps(application["environment"])}


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        raise Refusal(400, 3, "the body is no JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, 3, "the body is no object")
    return value


def _fields(body: dict[str, Any], known: Mapping[str, Any], required: tuple[str, ...] = ()) -> None:
    """[report] Unknown fields are errors of the JSON decoder."""
    for name, value in body.items():
        if name not in known:
            raise Refusal(400, 3, f'unknown field "{name}" in the request')
        if not isinstance(value, known[name]) or (isinstance(value, bool) and known[name] is not bool):
            raise Refusal(400, 3, f'field "{name}" has the wrong type')
    if missing := [name for name in required if not body.get(name)]:
        raise Refusal(400, 3, f"{missing[0]} is required")
    if any(not isinstance(value, str) for value in body.get("environment", {}).values()):
        raise Refusal(400, 3, 'field "environment" has the wrong type')


def _parts(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """The fields of a multipart body: the field's name is the path [doc]."""
    found = re.search(r"boundary=([^;]+)", content_type)
    if not found:
        raise Refusal(400, 3, "no multipart form")
    parts = []
    for part in body.split(b"--" + found[1].strip('"').encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head)
        if name:
            parts.append((name[1].decode(), content.removesuffix(b"\r\n")))
    return parts


def _free(path: str, files: Mapping[str, bytes]) -> str:
    stem, dot, extension = path.rpartition(".")
    if not dot:
        stem, extension = path, ""
    names = itertools.chain([path], (f"{stem}({number}){dot}{extension}" for number in itertools.count(1)))
    return next(name for name in names if name not in files)


_PROJECT = r"/api/v2/projects/(?P<project>[^/:]+)"
_APPLICATION = _PROJECT + r"/applications/(?P<application>[^/:]+)"
ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", _PROJECT, Platform.get_project),
    ("PATCH", _PROJECT, Platform.update_project),
    ("GET", _PROJECT + "/applications", Platform.list_applications),
    ("POST", _PROJECT + "/applications", Platform.create_application),
    ("GET", _APPLICATION, Platform.get_application),
    ("PATCH", _APPLICATION, Platform.update_application),
    ("DELETE", _APPLICATION, Platform.delete_application),
    ("POST", _APPLICATION + ":restart", Platform.restart_application),
    ("POST", _APPLICATION + ":stop", Platform.stop_application),
    ("GET", _PROJECT + "/files", Platform.list_files),
    ("POST", _PROJECT + "/files", Platform.upload),
    ("GET", _PROJECT + "/files/(?P<path>.+)", Platform.list_files),
    ("DELETE", _PROJECT + "/files/(?P<path>.+)", Platform.delete_file),
    ("GET", "/api/v2/runtimes", Platform.list_runtimes),
    ("POST", "/api/v2/runtimes", Platform.register_runtime),
    ("GET", "/api/v2/runtimes:validate", Platform.validate_runtime),
    ("GET", "/api/v2/nodelabels", Platform.list_labels),
]
