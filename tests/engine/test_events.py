"""event.from: what is told, what is left out, who is woken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domzero.engine.database import Database
from domzero.engine.events import Events, make_token
from domzero.engine.subscriptions import LONGEST, MOST
from domzero.engine.waiting import Call
from domzero.host.clock import ManualClock
from tests.engine.toy import GRAPH, create, destroy, raises, update

ME = "OpaqueRef:session"
SOON = 20.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def database(clock: ManualClock) -> AsyncIterator[Database]:
    database = await Database.open(GRAPH, None, clock, deletions_kept=3)
    yield database
    await database.close()


@pytest.fixture
def events(database: Database, clock: ManualClock) -> Events:
    return Events(database, clock)


async def ask(events: Events, *classes: str, token: str = "", timeout: float = 0.0) -> dict[str, Any]:
    return await asyncio.wait_for(events.from_(ME, classes, token, timeout), SOON)


def told(batch: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(event["class"], event["operation"], event["ref"]) for event in batch["events"]]


async def test_an_empty_token_gives_everything_there_is(database: Database, events: Events) -> None:
    crate, depot = create(database, "crate", name_label="a"), create(database, "depot")
    create(database, "ledger")
    batch = await ask(events, "*")
    assert told(batch) == [("crate", "add", crate), ("depot", "add", depot)]
    assert batch["valid_ref_counts"] == {"crate": 1, "parcel": 0, "depot": 1}
    assert re.fullmatch(r"\d{20},\d{20}", batch["token"])
    first = batch["events"][0]
    assert first == {
        "id": database.row("crate", crate).generation,
        "timestamp": "20110930T00:00:00Z",
        "class": "crate",
        "operation": "add",
        "ref": crate,
        "obj_uuid": database.get("crate", crate, "uuid"),
        "snapshot": database.record("crate", crate),
    }
    assert batch["events"][0]["id"] < batch["events"][1]["id"]


async def test_changes_of_one_object_are_told_once_with_the_last_state(database: Database, events: Events) -> None:
    kept, lost = create(database, "crate"), create(database, "crate")
    token = (await ask(events, "crate"))["token"]
    for weight in range(1, 5):
        update(database, "crate", kept, weight=weight)
    new = create(database, "crate")
    destroy(database, "crate", create(database, "crate"))
    destroy(database, "crate", lost)
    batch = await ask(events, "crate", token=token)
    assert told(batch) == [("crate", "mod", kept), ("crate", "add", new), ("crate", "del", lost)]
    assert batch["events"][0]["snapshot"]["weight"] == 4
    assert "snapshot" not in batch["events"][2]
    assert batch["valid_ref_counts"] == {"crate": 2}
    assert told(await ask(events, "crate", token=batch["token"])) == []


async def test_an_object_that_went_and_came_back_is_modified(database: Database, events: Events) -> None:
    ref = create(database, "crate")
    token = (await ask(events, "*"))["token"]
    destroy(database, "crate", ref)
    between = (await ask(events, "*", token=token))["token"]
    for _ in range(2):
        with database.transaction() as transaction:
            transaction.create("crate", {}, ref=ref)
        destroy(database, "crate", ref)
    assert told(await ask(events, "*", token=token)) == [("crate", "del", ref)]
    with database.transaction() as transaction:
        transaction.create("crate", {"weight": 5}, ref=ref)
    assert told(await ask(events, "*", token=token)) == [("crate", "mod", ref)]
    assert told(await ask(events, "*", token=between)) == [("crate", "add", ref)]


async def test_a_changed_reference_modifies_the_object_referred_to(database: Database, events: Events) -> None:
    crate = create(database, "crate")
    token = (await ask(events, "*"))["token"]
    parcel = create(database, "parcel", crate=crate)
    batch = await ask(events, "crate", "Parcel", token=token)
    assert told(batch) == [("parcel", "add", parcel), ("crate", "mod", crate)]
    assert batch["events"][1]["snapshot"]["parcels"] == (parcel,)


async def test_classes_are_compared_without_case_and_unknown_ones_are_silent(
    database: Database, events: Events
) -> None:
    crate = create(database, "crate")
    batch = await ask(events, "CRATE", "zeppelin")
    assert told(batch) == [("crate", "add", crate)]
    assert batch["valid_ref_counts"] == {"crate": 1}
    assert (await ask(events, "zeppelin", "ledger"))["valid_ref_counts"] == {}


async def test_a_subscription_to_one_object_tells_of_no_other(database: Database, events: Events) -> None:
    mine, other = create(database, "crate"), create(database, "crate")
    batch = await ask(events, f"Crate/{mine}")
    assert told(batch) == [("crate", "add", mine)]
    assert batch["valid_ref_counts"] == {"crate": 2}
    update(database, "crate", other, weight=1)
    assert told(await ask(events, f"crate/{mine}", token=batch["token"])) == []
    destroy(database, "crate", other)
    destroy(database, "crate", mine)
    assert told(await ask(events, f"crate/{mine}", token=batch["token"])) == [("crate", "del", mine)]


@pytest.mark.parametrize("token", ["x", "1", "1,", "-1,0", "1,2,3", "0" * 21 + ",0", "١,0"])
async def test_a_token_that_is_none_is_refused(events: Events, token: str) -> None:
    with raises("EVENT_FROM_TOKEN_PARSE_FAILURE", token):
        await ask(events, "*", token=token)


@pytest.mark.parametrize("subscription", ["", "/x", "crate/"])
async def test_a_subscription_that_is_none_is_refused(events: Events, subscription: str) -> None:
    with raises("EVENT_SUBSCRIPTION_PARSE_FAILURE", subscription):
        await ask(events, "crate", subscription)
    with raises("EVENT_SUBSCRIPTION_PARSE_FAILURE", subscription):
        events.register(ME, (subscription,))


async def test_a_subscription_of_megabytes_is_refused(events: Events) -> None:
    with raises("EVENT_SUBSCRIPTION_PARSE_FAILURE", "x" * LONGEST):
        await ask(events, "x" * (LONGEST + 1))
    with raises("EVENT_SUBSCRIPTION_PARSE_FAILURE", f"{MOST + 1} subscriptions; there may be {MOST}"):
        await ask(events, *map(str, range(MOST + 1)))
    assert (await ask(events, *map(str, range(MOST))))["events"] == []


async def test_a_token_of_zeros_is_the_empty_one(database: Database, events: Events) -> None:
    crate = create(database, "crate")
    assert told(await ask(events, "*", token=make_token(0))) == [("crate", "add", crate)]


async def test_a_token_that_cannot_be_answered_says_so(database: Database, events: Events) -> None:
    with raises("EVENTS_LOST"):
        await ask(events, "*", token=make_token(database.generation + 1))
    refs = [create(database, "crate") for _ in range(4)]
    token = (await ask(events, "*"))["token"]
    for ref in refs[:3]:
        destroy(database, "crate", ref)
    assert len(told(await ask(events, "*", token=token))) == 3
    destroy(database, "crate", refs[3])
    with raises("EVENTS_LOST"):
        await ask(events, "*", token=token)


async def test_a_wait_ends_with_the_first_change_that_matters(database: Database, events: Events) -> None:
    crate = create(database, "crate")
    token = (await ask(events, "*"))["token"]
    wait = asyncio.create_task(ask(events, "crate", token=token, timeout=30))
    await asyncio.sleep(0)
    create(database, "depot")
    await asyncio.sleep(0.02)
    assert not wait.done()
    update(database, "crate", crate, weight=1)
    update(database, "crate", crate, weight=2)
    batch = await wait
    assert told(batch) == [("crate", "mod", crate)]
    assert batch["events"][0]["snapshot"]["weight"] == 2


async def test_a_wait_goes_on_when_what_happened_cancels_out(database: Database, events: Events) -> None:
    token = (await ask(events, "*"))["token"]
    wait = asyncio.create_task(ask(events, "crate", token=token, timeout=30))
    await asyncio.sleep(0)
    destroy(database, "crate", create(database, "crate"))
    await asyncio.sleep(0.02)
    assert not wait.done()
    crate = create(database, "crate")
    assert told(await wait) == [("crate", "add", crate)]


async def test_a_wait_ends_at_its_timeout_with_a_newer_token(
    database: Database, events: Events, clock: ManualClock
) -> None:
    token = (await ask(events, "*"))["token"]
    wait = asyncio.create_task(ask(events, "crate", token=token, timeout=30.5))
    await clock.advance(30)
    create(database, "depot")
    assert not wait.done()
    await clock.advance(0.5)
    batch = await wait
    assert batch["events"] == []
    assert batch["token"] == make_token(database.generation) > token


@pytest.mark.parametrize("timeout", [-1.0, 1e12, float("inf"), float("nan")])
async def test_an_absurd_timeout_is_a_day(
    database: Database, events: Events, clock: ManualClock, timeout: float
) -> None:
    create(database, "crate")
    token = (await ask(events, "*"))["token"]
    wait = asyncio.create_task(ask(events, "*", token=token, timeout=timeout))
    await clock.advance(86_399)
    assert not wait.done()
    await clock.advance(1)
    assert (await wait)["events"] == []


async def test_what_happens_at_the_very_timeout_is_not_lost(
    database: Database, events: Events, clock: ManualClock
) -> None:
    token = (await ask(events, "*"))["token"]
    wait = asyncio.create_task(ask(events, "*", token=token, timeout=1))
    await clock.advance(0.5)
    crate = create(database, "crate")
    await clock.advance(0.5)
    assert told(await wait) == [("crate", "add", crate)]


async def test_a_time_that_is_over_while_the_call_is_awake_ends_its_next_wait() -> None:
    """It was woken, and finds that what happened cancels out; that its time has passed meanwhile is not said again."""
    call = Call(ME)
    wait = asyncio.create_task(call.wait())
    await asyncio.sleep(0)
    call.wake()
    call.expire()
    assert await wait
    async with asyncio.timeout(10):
        assert not await call.wait()


async def test_a_session_that_ends_ends_its_waits_and_no_others(database: Database, events: Events) -> None:
    token = (await ask(events, "*"))["token"]
    mine = [asyncio.create_task(events.from_(ME, ("*",), token, 30)) for _ in range(2)]
    other = asyncio.create_task(events.from_("OpaqueRef:other", ("*",), token, 30))
    await asyncio.sleep(0)
    events.forget(ME)
    for wait in mine:
        with raises("SESSION_INVALID", ME):
            await wait
    crate = create(database, "crate")
    assert told(await other) == [("crate", "add", crate)]


async def test_a_wait_that_was_about_to_end_still_hears_that_its_session_ended(
    database: Database, events: Events
) -> None:
    token = (await ask(events, "*"))["token"]
    wait = asyncio.create_task(events.from_(ME, ("crate",), token, 30))
    await asyncio.sleep(0)
    destroy(database, "crate", create(database, "crate"))
    asyncio.get_running_loop().call_later(0.0031, events.forget, ME)
    with raises("SESSION_INVALID", ME):
        await asyncio.wait_for(wait, SOON)


async def test_waits_leave_nothing_behind(database: Database, events: Events) -> None:
    token = (await ask(events, "*"))["token"]
    wait = asyncio.create_task(events.from_(ME, ("crate", "parcel/OpaqueRef:x"), token, 30))
    await asyncio.sleep(0)
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert vars(events._watching) == {"_by_subject": {}}
    assert events._filters == {}
    assert events._waking._by_session == {}
    assert events._deadlines._sleeper is None


async def test_waits_with_many_deadlines_end_in_their_order(
    database: Database, events: Events, clock: ManualClock
) -> None:
    token = (await ask(events, "*"))["token"]
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        batch = await events.from_(ME, ("crate",), token, seconds)
        assert batch["events"] == []
        ended.append(clock.monotonic())

    waits = [asyncio.create_task(wait(seconds)) for seconds in (50.0, 3.0, 40.0, 3.0, 1.0, 45.0)]
    await clock.advance(2)
    waits.append(asyncio.create_task(wait(0.5)))
    waits[0].cancel()
    await clock.advance(60)
    await asyncio.gather(*waits, return_exceptions=True)
    assert ended == [1.0, 2.5, 3.0, 3.0, 40.0, 45.0]
    assert events._deadlines._sleeper is None


async def test_calls_that_are_over_do_not_pile_up(database: Database, events: Events) -> None:
    token = (await ask(events, "*"))["token"]
    longest = asyncio.create_task(ask(events, "depot", token=token, timeout=86_400))
    for _ in range(300):
        wait = asyncio.create_task(events.from_(ME, ("crate",), token, 3600))
        await asyncio.sleep(0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
    assert len(events._deadlines._heap) < 80
    create(database, "depot")
    await longest


async def test_an_injected_token_separates_before_from_after(database: Database, events: Events) -> None:
    crate, other = create(database, "crate"), create(database, "crate")
    start = (await ask(events, "*"))["token"]
    update(database, "crate", crate, weight=1)
    token = events.inject("CRATE", other)
    assert told(await ask(events, "*", token=start)) == [("crate", "mod", crate), ("crate", "mod", other)]
    assert told(await ask(events, "*", token=token)) == []
    update(database, "crate", crate, weight=2)
    assert told(await ask(events, "*", token=token)) == [("crate", "mod", crate)]


async def test_injecting_needs_an_object_of_the_class(database: Database, events: Events) -> None:
    crate = create(database, "crate")
    with raises("HANDLE_INVALID", "depot", crate):
        events.inject("depot", crate)
    with raises("HANDLE_INVALID", "zeppelin", crate):
        events.inject("zeppelin", crate)


async def test_many_waits_of_one_session_are_independent(database: Database, events: Events) -> None:
    crate, depot = create(database, "crate"), create(database, "depot")
    token = (await ask(events, "*"))["token"]
    crates = asyncio.create_task(ask(events, "crate", token=token, timeout=30))
    depots = asyncio.create_task(ask(events, "depot", token=token, timeout=30))
    await asyncio.sleep(0)
    update(database, "crate", crate, weight=1)
    assert told(await crates) == [("crate", "mod", crate)]
    assert not depots.done()
    update(database, "depot", depot, name_label="x")
    assert told(await depots) == [("depot", "mod", depot)]
