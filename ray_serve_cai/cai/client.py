"""A small client of Cloudera AI's API, version 2. Facts: its Swagger, 26.06; ``cmlapi`` is not on PyPI.

Every call may raise `PlatformDownError` (no answer, or only errors of the platform's own, after retries), `PlatformAccessError` (401, 403),
`PlatformMissingError` (404), `PlatformRefusedError` (other 4xx) and `PlatformError` (an answer that cannot be read). Each carries the
platform's own message and the request, and never the key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ray_serve_cai.cai.models import Application, ApplicationRequest, File, NodeLabel, Project, Runtime, RuntimeCheck
from ray_serve_cai.cai.transport import Transport
from ray_serve_cai.errors import PlatformDownError, PlatformMissingError

UPLOADS = 3
"""How often a file is put there, deleted before each time: an answer that is lost may have been a copy."""


class Client(Transport):
    """Calls of the API."""

    def applications(self) -> list[Application]:
        """All applications of the project."""
        return list(self.pages(self._project("applications"), "applications", Application))

    def application(self, application_id: str) -> Application:
        """One application."""
        return self.one("GET", self._project("applications", application_id), Application)

    def create_application(self, wanted: ApplicationRequest) -> Application:
        """Make an application, which starts it."""
        return self.one("POST", self._project("applications"), Application, wanted.body())

    def update_application(self, application_id: str, wanted: ApplicationRequest) -> Application:
        """Change an application; what runs goes on as it was until it is restarted."""
        return self.one("PATCH", self._project("applications", application_id), Application, wanted.changes())

    def restart_application(self, application_id: str) -> None:
        """Stop it if it runs, and start it; it comes back with another pod IP."""
        self.ask("POST", self._project("applications", application_id) + ":restart", {}, twice=True)

    def stop_application(self, application_id: str) -> None:
        """Stop it; it stays and can be restarted."""
        self.ask("POST", self._project("applications", application_id) + ":stop", {})

    def delete_application(self, application_id: str) -> None:
        """Stop and remove it; one that is gone already is no error."""
        self._delete(self._project("applications", application_id))

    def project(self) -> Project:
        """The project."""
        return self.one("GET", self._project(), Project)

    def update_project(self, changes: Mapping[str, Any]) -> Project:
        """Change the project, for example ``{"shared_memory_limit": 8192}`` (MB)."""
        return self.one("PATCH", self._project(), Project, dict(changes))

    def runtimes(self) -> list[Runtime]:
        """The workspace's catalog."""
        return list(self.pages("/api/v2/runtimes", "runtimes", Runtime))

    def validate_runtime(self, image: str) -> RuntimeCheck:
        """Whether an image could become a runtime."""
        return self.one("GET", f"/api/v2/runtimes:validate?url={quote(image, safe='')}", RuntimeCheck)

    def register_runtime(self, image: str, credential_id: str | None = None) -> RuntimeCheck:
        """Add an image to the catalog; mostly only administrators may."""
        body = {"url": image} | ({"docker_credential_id": credential_id} if credential_id else {})
        return self.one("POST", "/api/v2/runtimes", RuntimeCheck, body)

    def node_labels(self) -> list[NodeLabel]:
        """The kinds of GPU nodes."""
        answer = self.ask("GET", "/api/v2/nodelabels")
        return [self.read(one, NodeLabel, "GET /api/v2/nodelabels") for one in answer.get("accelerator_node_label") or []]

    def files(self, directory: str = "") -> list[File]:
        """What a directory of the project holds."""
        return list(self.pages(self._project("files", *directory.split("/")), "files", File))

    def upload(self, path: str, content: bytes) -> None:
        """Put a file in the project. The API never overwrites but stores ``name(1).ext``, so what is there is deleted first."""
        for attempt in range(1, UPLOADS + 1):
            self.delete_file(path)
            try:
                self.send("POST", self._project("files"), files={path: (path.rsplit("/", 1)[-1], content)})
            except PlatformDownError:
                if attempt == UPLOADS:
                    raise
            else:
                return

    def delete_file(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        self._delete(self._project("files", *path.split("/")))

    def _project(self, *parts: str) -> str:
        return "/".join(["/api/v2/projects", *(quote(part, safe="") for part in (self._settings.project_id, *parts) if part)])

    def _delete(self, path: str) -> None:
        with contextlib.suppress(PlatformMissingError):
            self.ask("DELETE", path)
