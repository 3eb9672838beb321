"""event.register, event.next and event.unregister."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domzero.engine import classic_events
from domzero.engine.database import Database
from domzero.engine.events import Events
from domzero.engine.subscriptions import MOST
from domzero.host.clock import ManualClock
from tests.engine.toy import GRAPH, create, destroy, raises, update

ME, OTHER = "OpaqueRef:me", "OpaqueRef:other"
SOON = 20.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(clock: ManualClock) -> AsyncIterator[Database]:
    database = await Database.open(GRAPH, None, clock)
    yield database
    await database.close()


@pytest.fixture
def events(database: Database, clock: ManualClock) -> Events:
    return Events(database, clock, events_kept=4)


async def following(events: Events, session: str = ME) -> list[tuple[str, str, str]]:
    found = await asyncio.wait_for(events.next(session), SOON)
    return [(event["class"], event["operation"], event["ref"]) for event in found]


async def nothing_follows(events: Events, session: str = ME) -> bool:
    wait = asyncio.create_task(events.next(session))
    await asyncio.sleep(0.02)
    if wait.done():
        return False
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    return True


async def test_every_change_since_the_registration_is_told_with_its_state(database: Database, events: Events) -> None:
    create(database, "crate")
    events.register(ME, ("CRATE",))
    current = events.get_current_id()
    crate = create(database, "crate")
    create(database, "depot")
    update(database, "crate", crate, weight=1)
    update(database, "crate", crate, weight=2)
    destroy(database, "crate", crate)
    found: list[dict[str, Any]] = await events.next(ME)
    assert [event["operation"] for event in found] == ["add", "mod", "mod", "del"]
    assert [event["snapshot"]["weight"] for event in found[:3]] == [0, 1, 2]
    assert "snapshot" not in found[3]
    assert found[3]["obj_uuid"]
    ids = [event["id"] for event in found]
    assert current < ids[0] < ids[1] < ids[2] < ids[3]
    assert await nothing_follows(events)


async def test_who_never_registered_is_told_so(events: Events) -> None:
    with raises("SESSION_NOT_REGISTERED", ME):
        await events.next(ME)


async def test_registering_adds_and_unregistering_takes_away(database: Database, events: Events) -> None:
    events.register(ME, ("crate",))
    depot = create(database, "depot")
    events.register(ME, ("*", "nonsense"))
    update(database, "depot", depot, name_label="x")
    assert await following(events) == [("depot", "mod", depot)]
    events.unregister(ME, ("*",))
    create(database, "depot")
    crate = create(database, "crate")
    assert await following(events) == [("crate", "add", crate)]
    events.unregister(ME, ("crate", "nonsense"))
    with raises("SESSION_NOT_REGISTERED", ME):
        await events.next(ME)


async def test_a_subscription_to_one_object(database: Database, events: Events) -> None:
    mine, other = create(database, "crate"), create(database, "crate")
    events.register(ME, (f"crate/{mine}",))
    update(database, "crate", other, weight=1)
    update(database, "crate", mine, weight=1)
    assert await following(events) == [("crate", "mod", mine)]


async def test_events_from_before_a_registration_stay_unknown(database: Database, events: Events) -> None:
    events.register(OTHER, ("*",))
    events.register(ME, ("depot",))
    create(database, "crate")
    events.register(ME, ("crate",))
    crate = create(database, "crate")
    assert await following(events) == [("crate", "add", crate)]


async def test_registrations_are_bounded_however_many_calls_they_come_in(database: Database, events: Events) -> None:
    half = [f"crate/{number}" for number in range(MOST // 2)]
    for _ in range(2):
        events.register(ME, half)
    events.register(ME, [f"depot/{number}" for number in range(MOST // 2)])
    with raises("EVENT_SUBSCRIPTION_PARSE_FAILURE", f"{MOST + 1} subscriptions; there may be {MOST}"):
        events.register(ME, ("crate",))
    events.unregister(ME, half)
    events.register(ME, ("crate",))
    crate = create(database, "crate")
    assert await following(events) == [("crate", "add", crate)]


async def test_an_empty_registration_waits_until_the_session_ends(database: Database, events: Events) -> None:
    events.register(ME, ())
    wait = asyncio.create_task(events.next(ME))
    await asyncio.sleep(0)
    create(database, "crate")
    await asyncio.sleep(0.02)
    assert not wait.done()
    events.forget(ME)
    with raises("SESSION_INVALID", ME):
        await wait
    with raises("SESSION_NOT_REGISTERED", ME):
        await events.next(ME)


async def test_unregistering_everything_ends_a_wait(events: Events) -> None:
    events.register(ME, ("crate",))
    wait = asyncio.create_task(events.next(ME))
    await asyncio.sleep(0)
    events.unregister(ME, ("crate",))
    with raises("SESSION_NOT_REGISTERED", ME):
        await wait


async def test_two_waits_of_one_session_share_the_events(database: Database, events: Events) -> None:
    events.register(ME, ("crate",))
    waits = [asyncio.create_task(following(events)) for _ in range(2)]
    await asyncio.sleep(0)
    first = create(database, "crate")
    done, waiting = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=SOON)
    assert [task.result() for task in done] == [[("crate", "add", first)]]
    second = create(database, "crate")
    assert [await task for task in waiting] == [[("crate", "add", second)]]


async def test_only_who_missed_something_wanted_has_lost_events(database: Database, events: Events) -> None:
    events.register(ME, ("crate",))
    events.register(OTHER, ("depot",))
    depot = create(database, "depot")
    for _ in range(4):
        create(database, "crate")
    assert len(await following(events)) == 4
    with raises("EVENTS_LOST"):
        await events.next(OTHER)
    update(database, "depot", depot, name_label="x")
    assert await following(events, OTHER) == [("depot", "mod", depot)]


async def test_large_objects_push_out_earlier_events(
    database: Database, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client puts into its objects is bounded only by what a call may carry; a sleeper must not keep it all."""
    monkeypatch.setattr(classic_events, "SIZE_KEPT", 100_000)
    crate = create(database, "crate")
    events.register(ME, ("crate",))
    for changes in ({"name_label": "x" * 20_000}, {"tags": ("y" * 10_000, "y")}, {"other_config": {"z": "z" * 10_000}}):
        update(database, "crate", crate, **changes)
    assert 90_000 < events._queue._size < 100_000
    assert await following(events) == [("crate", "mod", crate)] * 3
    assert events._queue._size == 0
    for weight in (1, 2, 3):
        update(database, "crate", crate, weight=weight)
    assert 80_000 < events._queue._size < 100_000
    with raises("EVENTS_LOST"):
        await events.next(ME)
    update(database, "crate", crate, name_label="x" * 200_000)
    assert await following(events) == [("crate", "mod", crate)], "one event is kept, however large"


async def test_events_are_kept_only_while_somebody_wants_them(database: Database, events: Events) -> None:
    create(database, "crate")
    events.register(ME, ("crate",))
    events.register(OTHER, ("crate", "depot"))
    create(database, "crate")
    assert len(events._queue._events) == 1
    await following(events)
    assert len(events._queue._events) == 1
    await following(events, OTHER)
    assert len(events._queue._events) == 0
    create(database, "depot")
    events.forget(OTHER)
    assert await nothing_follows(events)
    assert len(events._queue._events) == 0
    create(database, "depot")
    assert len(events._queue._events) == 0


async def test_the_heartbeat_is_heard_though_nothing_changed(
    database: Database, events: Events, clock: ManualClock
) -> None:
    depot = create(database, "depot")
    generation = database.row("depot", depot).generation
    events.register(ME, ("depot",))
    beating = asyncio.create_task(events.heartbeat("depot"))
    wait = asyncio.create_task(following(events))
    await clock.advance(29)
    assert not wait.done()
    await clock.advance(1)
    assert await wait == [("depot", "mod", depot)]
    assert database.row("depot", depot).generation == generation
    update(database, "depot", depot, name_label="x")
    assert await following(events) == [("depot", "mod", depot)]
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
