"""Requests to the platform's API: authorization, retries, pages, JSON. What can be asked stands in `ray_serve_cai.cai.client`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from ray_serve_cai.cai import retry
from ray_serve_cai.cai.failures import failure
from ray_serve_cai.cai.models import Answer
from ray_serve_cai.cai.settings import Settings
from ray_serve_cai.errors import PlatformError, one_line

if TYPE_CHECKING:
    from typing_extensions import Self

PAGE_SIZE = 50
MOST_PAGES = 1000
TIMEOUT = httpx.Timeout(60, connect=10)
A = TypeVar("A", bound=Answer)


class Transport:
    """One connection pool, which closes with the context."""

    def __init__(
        self,
        settings: Settings,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        verify = settings.trust()
        self._settings = settings
        self._say = say
        self._sleep = sleep
        self._http = httpx.Client(base_url=settings.host, verify=verify, timeout=TIMEOUT, transport=transport, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def pages(self, path: str, key: str, kind: type[A]) -> Iterator[A]:
        """All pages of a list."""
        token, seen = "", set[str]()
        while True:
            query = f"?page_size={PAGE_SIZE}" + (f"&page_token={quote(token, safe='')}" if token else "")
            answer = self.ask("GET", path + query)
            listed = answer.get(key) or []
            if not isinstance(listed, list):
                raise PlatformError(f"GET {path} gave an answer whose {key!r} is no list; is the workspace newer or older than 26.06?")
            for one in listed:
                yield self.read(one, kind, f"GET {path}")
            token = str(answer.get("next_page_token") or "")
            if not token:
                return
            if token in seen or len(seen) >= MOST_PAGES:
                raise PlatformError(f"GET {path} gave the page {token[:40]!r} twice, or more than {MOST_PAGES} pages; try again later.")
            seen.add(token)

    def one(self, method: str, path: str, kind: type[A], body: dict[str, Any] | None = None) -> A:
        """One call whose answer is one object."""
        return self.read(self.ask(method, path, body), kind, f"{method} {path}")

    def read(self, value: Any, kind: type[A], request: str) -> A:
        """An object of an answer."""
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise PlatformError(
                f"{request} gave an answer that is no {kind.__name__}: {where}: {first['msg']}; is the workspace newer or older than 26.06?"
            ) from None

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, *, twice: bool = False) -> dict[str, Any]:
        """One call with JSON both ways."""
        response = self.send(method, path) if body is None else self.send(method, path, json=body, twice=twice)
        if not response.content:
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise PlatformError(
                f"{method} {self._settings.host}{path.partition('?')[0]} gave {one_line(ValueError(response.text[:80]))!r} and no JSON; "
                "is the address that of the workspace, and not of a login page or a proxy?"
            )
        return answer

    def send(self, method: str, path: str, *, twice: bool = False, **content: Any) -> httpx.Response:
        """One request, made again where that may help; ``twice`` says that doing it twice is no harm, as it is for all but POST."""
        request = f"{method} {self._settings.host}{path.partition('?')[0]}"
        key = self._settings.api_key.get_secret_value()
        headers = {"Authorization": f"Bearer {key}"}
        attempt = 1
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.request(method, path, headers=headers, **content)
            except httpx.TransportError as error:
                outcome = error
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return outcome
            pause = retry.again(twice=twice or method in retry.IDEMPOTENT, attempt=attempt, outcome=outcome)
            if pause is None:
                raise failure(request, outcome, attempt, key) from None
            attempt += 1
            seen = outcome.status_code if isinstance(outcome, httpx.Response) else "no answer"
            self._say(f"{request}: {seen}; trying again in {pause:.1f} s ({attempt} of {retry.ATTEMPTS})")
            self._sleep(pause)
