"""Updates of a running cluster: a request is planned, applied, followed, and undone where the new replicas do not start.

A replica that spans nodes is renewed in the same way when one of them leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray_serve_cai.config import Config, parse
from ray_serve_cai.engines import report
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import ConfigError, EngineError, RayServeCaiError, UnavailableError, one_line
from ray_serve_cai.serving import app, mailbox, rollout, spread
from ray_serve_cai.serving.mailbox import Answer, Mailbox, Request
from ray_serve_cai.serving.spread import Groups
from ray_serve_cai.serving.standing import is_building, replicas, running_replicas
from ray_serve_cai.state import NodeState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desired:
    """What is to be served, and as what."""

    config: Config
    engines: list[EngineConfig]

    def applications(self) -> dict[str, EngineConfig]:
        """Serve's name of each model's application -> the model."""
        return {app.application_name(model): engine for model, engine in zip(self.config.models, self.engines, strict=True)}


@dataclass(frozen=True)
class _UnderWay:
    before: Desired
    steps: list[rollout.Step]
    old: dict[str, frozenset[str]]
    answer: Answer


class Updates:
    """The one writer's side. ``desired`` is what it has applied, and changes with each update.

    Args:
        build: a configuration's engines, as they are deployed.
        apply: makes Serve come to what is desired.
        keep: remembers a configuration that has come to run.
        answers: whether a model of this name answers through the ingress.
        nodes: the cluster's nodes, first with all that they offer, then with what is free of it.
        groups: the placement groups of replicas that span nodes.
    """

    def __init__(
        self,
        desired: Desired,
        box: Mailbox,
        *,
        build: Callable[[Config], list[EngineConfig]],
        apply: Callable[[Desired], None],
        keep: Callable[[Config], None],
        answers: Callable[[str], bool],
        nodes: Callable[[], tuple[Sequence[NodeState], Sequence[NodeState]]],
        groups: Callable[[], Groups],
    ) -> None:
        self.desired = desired
        self._box, self._build, self._apply, self._keep, self._nodes = box, build, apply, keep, nodes
        self._answers, self._groups = answers, groups
        self._moved: frozenset[str] = frozenset()
        self._under_way: _UnderWay | None = None

    def look(self, applications: Mapping[str, Any]) -> None:
        """Go on with the update under way, or begin the next; ``applications`` are Serve's, as its REST API gives them.

        Nothing that goes wrong with an update may end what serves.
        """
        if any(is_building(application) for application in applications.values()):
            return  # nobody can say now which replicas there are
        try:
            request = self._box.take()
            if request:
                self._answer(request, applications)
            elif self._under_way:
                self._follow(self._under_way, applications)
            else:
                self._move(applications)
        except Exception:  # a full disk, Ray's store out of reach: the next look tries again
            logger.exception("an update could not be looked at; it is tried again")

    def _answer(self, request: Request, applications: Mapping[str, Any]) -> None:
        try:
            if request.cancel:
                self._cancel(request)
            else:
                self._begin(request, applications)
        except Exception as error:  # a plugin's config builder may raise anything
            typed = error if isinstance(error, RayServeCaiError) else EngineError(f"{type(error).__name__}: {one_line(error)}")
            self._box.answer(Answer(request.id, mailbox.FAILED, error=str(typed), error_type=type(typed).__name__))

    def _cancel(self, request: Request) -> None:
        if self._under_way is None:
            raise UnavailableError("no update is under way, so there is nothing to cancel.")
        self._undo(self._under_way, UnavailableError("the update was cancelled"))
        self._box.answer(Answer(request.id, mailbox.DONE))

    def _begin(self, request: Request, applications: Mapping[str, Any]) -> None:
        if self._under_way and not request.dry_run:
            seen = self._under_way.answer.detail or "it has begun"
            raise UnavailableError(f"another update is under way ({seen}); wait for it, or end it with: ray-serve-cai deploy --cancel.")
        before = self.desired
        config = parse(request.config, "the new configuration")
        if config.server != before.config.server:
            raise ConfigError("server: its settings are the front door's, which an update does not touch; start the head anew for them.")
        now, (nodes, free) = self._now(applications), self._nodes()
        running = {name: running_replicas(application) for name, application in now.items()}
        wanted = rollout.same_generation(before.engines, self._build(config))
        steps = rollout.plan(before.engines, wanted, running, nodes, free, allow_downtime=request.allow_downtime)
        answer = Answer(request.id, mailbox.UNDER_WAY, plan={step.engine.name: step.said for step in steps})
        if request.dry_run:
            self._box.answer(replace(answer, state=mailbox.PLANNED))
            return
        self._box.answer(answer)
        self._take(config, steps, now, answer)

    def _move(self, applications: Mapping[str, Any]) -> None:
        """Start successors for replicas that are about to lose ranks with a node that is being drained."""
        groups = self._groups()
        if not groups:
            return
        nodes, free = self._nodes()
        found = spread.to_move(groups, applications, frozenset(node.id for node in nodes if node.draining))
        new = {name: ids for name, ids in found.items() if ids - self._moved}
        if not new:
            return
        self._moved |= frozenset().union(*new.values())
        now = self._now(applications)
        running = {name: running_replicas(application) for name, application in now.items()}
        served = self.desired.applications().items()
        wanted = [rollout.renewed(engine) if name in new else rollout.settled(engine) for name, engine in served]
        steps = rollout.plan(self.desired.engines, wanted, running, nodes, free, allow_downtime=True, must=True)
        logger.info("a node that leaves has ranks of %s", ", ".join(new))
        self._take(self.desired.config, steps, now, Answer("", mailbox.UNDER_WAY))

    def _now(self, applications: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        return {engine.name: applications.get(name, {}) for name, engine in self.desired.applications().items()}

    def _take(self, config: Config, steps: list[rollout.Step], now: Mapping[str, Mapping[str, Any]], answer: Answer) -> None:
        """Take the steps, from where each model's application is now."""
        for step in steps:
            logger.info("update of %s: %s", step.engine.name, step.said)
            if step.kind != rollout.UNCHANGED:
                report.write(step.engine.name, report.StartReport())
        old = {name: frozenset(one["replica_id"] for one in replicas(application)) for name, application in now.items()}
        before = self.desired
        self._bring_to(Desired(config, [step.engine for step in steps]))
        self._under_way = _UnderWay(before, steps, old, answer)

    def _follow(self, update: _UnderWay, applications: Mapping[str, Any]) -> None:
        names, waiting = {engine.name: name for name, engine in self.desired.applications().items()}, []
        for step in update.steps:
            model = step.engine.name
            application = applications.get(names[model], {})
            if rollout.done(step, application, update.old[model]):
                if step.kind != rollout.UNCHANGED and step.expected and not self._answers(model):
                    waiting.append(f"{model}: does not answer yet")
                continue
            waiting.append(f"{model}: {rollout.progress(step, application, update.old[model])}")
            error = report.read(model).as_error()
            if error is None and application.get("status") == "DEPLOY_FAILED":
                error = EngineError(f"model {model!r} did not start: {report.last_line(str(application.get('message', '')))}")
            if error is not None:
                self._undo(update, error)
                return
        if waiting:
            if (detail := "; ".join(waiting)) != update.answer.detail:
                self._under_way = replace(update, answer=replace(update.answer, detail=detail))
                self._tell(self._under_way.answer)
            return
        self._under_way = None
        try:
            if self.desired.config is not update.before.config:
                self._keep(self.desired.config)
        except OSError as error:
            logger.warning("the new configuration is served, and will not be after a restart, since it cannot be written down: %s", error)
        logger.info("update done")
        self._tell(replace(update.answer, state=mailbox.DONE, detail=""))

    def _undo(self, update: _UnderWay, error: RayServeCaiError) -> None:
        logger.error("update failed: %s", error)
        self._under_way, stays = None, "the former configuration stays"
        try:
            self._bring_to(update.before)
        except UnavailableError as refused:
            stays = f"going back to the former configuration failed, too: {str(refused).rstrip('.')}"
        message = f"{str(error).rstrip('.')}; {stays}."
        self._tell(replace(update.answer, state=mailbox.FAILED, detail="", error=message, error_type=type(error).__name__))

    def _tell(self, answer: Answer) -> None:
        """Answer whoever asked; a move that nobody asked for has no id."""
        if answer.id:
            self._box.answer(answer)

    def _bring_to(self, wanted: Desired) -> None:
        before = self.desired
        self.desired = wanted
        try:
            self._apply(wanted)
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            self.desired = before
            raise UnavailableError(f"Ray Serve did not take the configuration: {one_line(error)}.") from error
