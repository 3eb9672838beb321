"""Events through calls: both interfaces, and what a waiting call means for its session and its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.sessions import IDLE_LIMIT
from tests.engine.toy_calls import STRANGER, Toy


async def test_classic_interface(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    assert (await toy.fails("event.next", session))[0] == "SESSION_NOT_REGISTERED"
    await toy.call("event.register", session, ["lamp"])
    before = await toy.call("event.get_current_id", session)
    waiting = asyncio.create_task(toy.call("event.next", session))
    await toy.turns()
    await toy.call("lamp.set_name_label", session, lamp, "desk")
    (event,) = await waiting
    assert (event["class"], event["operation"], event["ref"]) == ("lamp", "mod", lamp)
    assert event["id"] >= before
    await toy.call("event.unregister", session, ["lamp"])


async def test_event_from_sees_what_changed_and_injected_tokens(toy: Toy) -> None:
    session, lamp = await toy.root(), toy.lamp()
    batch = await toy.call("event.from", session, ["lamp"], "", 0)
    assert [event["operation"] for event in batch["events"]] == ["add"]
    assert batch["valid_ref_counts"] == {"lamp": 1}
    token = await toy.call("event.inject", session, "lamp", lamp)
    assert token > batch["token"]
    later = asyncio.create_task(toy.call("event_from", session, ["lamp"], batch["token"], 30.0))
    await toy.clock.advance(1)
    assert [event["ref"] for event in (await later)["events"]] == [lamp]
    assert (await toy.fails("event.inject", session, "lamp", "no"))[0] == "HANDLE_INVALID"
    assert (await toy.fails("event.from", session, ["lamp"], "nonsense", 0))[0] == "EVENT_FROM_TOKEN_PARSE_FAILURE"


async def test_logout_wakes_waiting_calls(toy: Toy) -> None:
    session, other = await toy.root(), await toy.root()
    await toy.call("event.register", session, [])
    waiting = [
        asyncio.create_task(toy.fails("event.next", session)),
        asyncio.create_task(toy.fails("event.from", session, ["lamp/x"], "", 1000)),
    ]
    spared = asyncio.create_task(toy.call("event.from", other, ["lamp/x"], "", 1000))
    await toy.turns()
    await toy.call("session.logout", session)
    for call in waiting:
        assert await call == ("SESSION_INVALID", session)
    assert not spared.done()
    await toy.clock.advance(1001)
    await spared


@pytest.mark.parametrize(("method", "params"), [("event.next", ()), ("event.from", (["lamp/x"], "", 1000.0))])
async def test_a_call_whose_session_ends_before_it_begins_does_not_wait(
    toy: Toy, method: str, params: tuple[object, ...]
) -> None:
    """Both calls come in one turn of the loop, on two connections: nobody wakes the waiting one later."""
    session = await toy.root()
    await toy.call("event.register", session, [])
    waiting = toy.dispatcher.call(method, [session, *params], STRANGER)
    assert isinstance(waiting, Coroutine)
    await toy.call("session.logout", session)
    with pytest.raises(ApiError) as caught:
        await asyncio.wait_for(waiting, 10)
    assert caught.value.description == ("SESSION_INVALID", session)
    assert toy.engine.events._waking._by_session == {}


async def test_session_that_waits_does_not_expire(toy: Toy) -> None:
    session = await toy.root()
    await toy.call("event.register", session, ["lamp"])
    waiting = asyncio.create_task(toy.call("event.next", session))
    await toy.turns()
    await toy.clock.advance(IDLE_LIMIT + 1)
    toy.engine.sessions.sweep()
    toy.lamp()
    await toy.clock.advance(1)
    assert len(await waiting) == 1
    assert await toy.call("session.get_pool", session, session) is False


async def test_waiting_call_ends_with_its_caller(toy: Toy) -> None:
    session = await toy.root()
    await toy.call("event.register", session, ["lamp"])
    waiting = asyncio.create_task(toy.call("event.next", session))
    await toy.turns()
    assert toy.engine.sessions.live[session].busy == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert toy.engine.sessions.live[session].busy == 0
    assert {task for task in asyncio.all_tasks() if "next" in repr(task.get_coro())} == set()
