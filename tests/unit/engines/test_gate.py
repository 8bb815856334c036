import asyncio
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.engines import gate as module
from ray_serve_cai.engines.engine_config import Limits
from ray_serve_cai.engines.gate import LONGEST_WAIT_S, Gate


def limits(max_concurrent: int = 1, max_queued: int = 8) -> Limits:
    return Limits(max_concurrent=max_concurrent, max_queued=max_queued)


class Client:
    """A request: it has its place from ``begun`` on, until it is let go or cancelled."""

    def __init__(self, gate: Gate, order: list[str] | None = None, name: str = "") -> None:
        self.begun, self._go = False, asyncio.Event()
        self._gate, self._order, self._name = gate, order, name
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        async with self._gate.place():
            self.begun = True
            if self._order is not None:
                self._order.append(self._name)
            await self._go.wait()

    async def end(self) -> None:
        self._go.set()
        await self.task


async def settle() -> None:
    """Everybody comes as far as he can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def clients(gate: Gate, number: int) -> list[Client]:
    made = [Client(gate) for _ in range(number)]
    await settle()
    return made


def begun(made: list[Client]) -> list[bool]:
    return [one.begun for one in made]


async def has_places(gate: Gate, number: int) -> bool:
    """Whether so many, and no more, find a place in an empty gate; it is empty again after that."""
    made = await clients(gate, number + 1)
    found = begun(made) == [True] * number + [False]
    for one in made:
        await one.end()
    return found


async def test_first_come_first_served() -> None:
    gate, order = Gate(limits(2)), list[str]()
    made = {}
    for name in "abcde":
        made[name] = Client(gate, order, name)
        await settle()
    assert order == ["a", "b"]
    for name in "badce":
        made[name]._go.set()
        await settle()
    assert order == ["a", "b", "c", "d", "e"]


async def test_nobody_overtakes_one_whose_turn_has_come() -> None:
    gate, order = Gate(limits(1)), list[str]()
    first = Client(gate, order, "first")
    await settle()
    second = Client(gate, order, "second")
    await settle()
    first._go.set()
    third = Client(gate, order, "third")  # in the same iteration of the loop in which the first one ends
    await settle()
    assert order == ["first", "second"]
    await second.end()
    await third.end()


@pytest.mark.parametrize(("max_concurrent", "max_queued"), [(1, 0), (1, 2), (3, 0), (3, 2)])
async def test_full_is_who_runs_and_who_waits(max_concurrent: int, max_queued: int) -> None:
    gate = Gate(limits(max_concurrent, max_queued))
    made: list[Client] = []
    for _ in range(max_concurrent + max_queued):
        assert not gate.is_full()
        made += await clients(gate, 1)
    assert gate.is_full()
    assert begun(made) == [True] * max_concurrent + [False] * max_queued
    await made[0].end()
    assert not gate.is_full()
    for one in made:
        await one.end()
    assert await has_places(gate, max_concurrent)


async def test_who_leaves_while_he_waits_makes_room_for_another() -> None:
    gate = Gate(limits(1, 1))
    first, second = await clients(gate, 2)
    assert gate.is_full()
    second.task.cancel()
    await settle()
    assert not gate.is_full()
    (third,) = await clients(gate, 1)
    await first.end()
    await settle()
    assert (second.begun, third.begun) == (False, True)
    await third.end()
    assert await has_places(gate, 1)


async def test_who_leaves_while_he_runs_gives_his_place_to_the_next() -> None:
    gate = Gate(limits(1))
    first, second = await clients(gate, 2)
    first.task.cancel()
    await settle()
    assert second.begun
    await second.end()
    assert await has_places(gate, 1)


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_who_leaves_in_the_moment_of_his_turn_gives_his_place_to_the_next(cancelled_first: bool) -> None:
    gate = Gate(limits(1))
    first, second, third = await clients(gate, 3)

    def leave() -> None:
        second.task.cancel()

    if cancelled_first:
        leave()
    gate.renew(limits(2))  # the turn of the first who waits comes at once, and he hears of it in the next iteration
    if not cancelled_first:
        leave()
    await settle()
    assert (second.begun, third.begun) == (False, True)
    await first.end()
    await third.end()
    assert await has_places(gate, 2)


async def test_all_who_wait_may_leave_at_once() -> None:
    gate = Gate(limits(1))
    first, *others = await clients(gate, 5)
    for one in others:
        one.task.cancel()
    await first.end()
    await settle()
    assert not any(begun(others))
    assert await has_places(gate, 1)


async def test_an_error_gives_the_place_back() -> None:
    gate = Gate(limits(1))
    for _ in range(3):
        with pytest.raises(KeyError):
            async with gate.place():
                raise KeyError
    assert await has_places(gate, 1)


async def test_more_places_are_given_at_once() -> None:
    gate = Gate(limits(1))
    made = await clients(gate, 5)
    gate.renew(limits(3))
    await settle()
    assert begun(made) == [True, True, True, False, False]
    for one in made:
        await one.end()
    assert await has_places(gate, 3)


async def test_fewer_places_hold_as_soon_as_those_that_are_too_many_have_ended() -> None:
    gate = Gate(limits(3))
    made = await clients(gate, 5)
    gate.renew(limits(1, 0))
    assert gate.is_full()
    await made[0].end()
    await made[1].end()
    await settle()
    assert begun(made) == [True, True, True, False, False]
    await made[2].end()
    await settle()
    assert begun(made) == [True, True, True, True, False]
    await made[3].end()
    await made[4].end()
    assert await has_places(gate, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The gate's clock; a test moves ``now``."""
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


async def took(gate: Gate, clock: SimpleNamespace, seconds: float, times: int = 100) -> None:
    """So many requests of so many seconds; a hundred make the mean almost theirs."""
    for _ in range(times):
        async with gate.place():
            clock.now += seconds


async def test_before_any_request_a_short_while_is_named() -> None:
    assert Gate(limits()).retry_after_s() == 1


@pytest.mark.parametrize(
    ("seconds", "max_concurrent", "waiting", "expected"),
    [(0, 1, 0, 1), (0.001, 4, 3, 1), (2, 1, 0, 2), (2, 1, 3, 8), (2, 4, 7, 4), (2, 4, 8, 5), (10, 1, 5, 60), (3600, 1, 0, LONGEST_WAIT_S)],
)
async def test_when_to_come_again(clock: SimpleNamespace, seconds: float, max_concurrent: int, waiting: int, expected: int) -> None:
    gate = Gate(limits(max_concurrent))
    gate._mean_s = seconds
    made = await clients(gate, max_concurrent + waiting)
    assert gate.retry_after_s() == expected
    for one in made:
        one.task.cancel()


async def test_requests_that_take_longer_make_clients_wait_longer(clock: SimpleNamespace) -> None:
    gate = Gate(limits())
    await took(gate, clock, 30)
    assert gate.retry_after_s() == 30
    await took(gate, clock, 2, times=10)
    assert 2 < gate.retry_after_s() < 30
    await took(gate, clock, 2)
    assert 2 <= gate.retry_after_s() <= 3


async def test_what_a_request_waited_is_not_what_it_took(clock: SimpleNamespace) -> None:
    gate = Gate(limits())
    first, second = await clients(gate, 2)
    clock.now += 1000
    await first.end()
    gate._mean_s = 5
    await second.end()
    assert gate.retry_after_s() == 5


@given(st.floats(0, 1e9), st.integers(1, 100_000), st.integers(0, 3))
def test_a_client_is_never_sent_away_for_longer_than_it_heeds(mean: float, max_concurrent: int, waiting: int) -> None:
    async def ask() -> int:
        gate = Gate(limits(max_concurrent))
        gate._mean_s = mean
        gate._waiting.extend(asyncio.get_running_loop().create_future() for _ in range(waiting))
        return gate.retry_after_s()

    assert 1 <= asyncio.run(ask()) <= LONGEST_WAIT_S


@given(st.integers(0, 1 << 32), st.integers(1, 4), st.integers(0, 4))
def test_whatever_happens_no_place_is_lost_and_none_is_given_twice(seed: int, max_concurrent: int, max_queued: int) -> None:
    dice = random.Random(seed)

    async def play() -> None:
        gate, here = Gate(limits(max_concurrent, max_queued)), list[Client]()
        most = max_concurrent
        for _ in range(60):
            match dice.randrange(6):
                case 0 | 1:
                    if not gate.is_full():
                        here.append(Client(gate))
                case 2 if here:
                    dice.choice(here)._go.set()
                case 3 if here:
                    dice.choice(here).task.cancel()
                case 4:
                    most = dice.randint(1, 4)
                    gate.renew(limits(most, dice.randint(0, 4)))
                case _:
                    await asyncio.sleep(0)
            assert sum(one.begun and not one.task.done() for one in here) <= gate._running
            assert gate._running >= most or not gate._waiting or any(turn.cancelled() for turn in gate._waiting)
        for one in here:
            one._go.set()
        await asyncio.wait_for(asyncio.gather(*(one.task for one in here), return_exceptions=True), 5)
        assert (gate._running, len(gate._waiting)) == (0, 0)
        assert await has_places(gate, most)

    asyncio.run(play())


@given(st.integers(0, 1 << 32), st.integers(1, 4))
def test_no_more_run_than_may(seed: int, max_concurrent: int) -> None:
    dice = random.Random(seed)

    async def play() -> int:
        gate, seen, running = Gate(limits(max_concurrent, 100)), 0, 0

        async def ask() -> None:
            nonlocal seen, running
            async with gate.place():
                running += 1
                seen = max(seen, running)
                try:
                    for _ in range(dice.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    running -= 1

        tasks = []
        for _ in range(40):
            tasks.append(asyncio.create_task(ask()))
            if dice.random() < 0.4:
                dice.choice(tasks).cancel()
            if dice.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        return seen

    assert asyncio.run(play()) <= max_concurrent
