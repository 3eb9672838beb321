"""Logging in and out, what ends a session, what outlives the daemon, and what guessing passwords costs."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from domzero.engine import login as login_module
from domzero.engine.calls import LOCAL, Origin
from domzero.engine.errors import ApiError
from domzero.engine.login import CHECKS_PER_ADDRESS, DELAY, DELAYS_PER_ADDRESS, Door
from domzero.engine.sessions import IDLE_LIMIT, SESSION_LIMIT
from domzero.engine.users import REFUSED, Users
from domzero.idl.types import NEVER, NULL_REF
from tests.engine.conftest import MakeToy
from tests.engine.toy_calls import PASSWORD, STRANGER, Toy, ToyClock


async def test_record_of_a_root_session(toy: Toy) -> None:
    session = await toy.call("session.login_with_password", "root", PASSWORD, "1.3", "tests")
    record = await toy.call("session.get_record", session, session)
    root = toy.engine.users.find("root")
    assert dict(record) == {
        "uuid": record["uuid"],
        "this_host": toy.host,
        "this_user": root,
        "last_active": "20110930T00:00:00Z",
        "pool": False,
        "other_config": {},
        "is_local_superuser": True,
        "subject": NULL_REF,
        "validation_time": NEVER,
        "auth_user_sid": "",
        "auth_user_name": "root",
        "rbac_permissions": (),
        "tasks": (),
        "parent": NULL_REF,
        "originator": "tests",
        "client_certificate": False,
    }
    assert await toy.call("session.get_by_uuid", session, record["uuid"]) == session
    assert await toy.call("user.get_short_name", session, root) == "root"


async def test_record_of_a_local_user_s_session(toy: Toy) -> None:
    session = await toy.session_of("vm-operator")
    record = await toy.call("session.get_record", session, session)
    assert (record["is_local_superuser"], record["auth_user_sid"]) == (False, "vm-operator")
    assert await toy.call("subject.get_subject_identifier", session, record["subject"]) == "vm-operator"
    assert record["validation_time"] == "20110930T00:00:00Z"
    assert {"lamp.switch_on", "session.logout"} <= set(record["rbac_permissions"])
    assert "lamp.repair" not in record["rbac_permissions"]
    assert await toy.call("session.get_rbac_permissions", session, session) == record["rbac_permissions"]


@pytest.mark.parametrize("arguments", [(), ("1.3",), ("2.21", "someone")])
async def test_login_takes_two_to_four_parameters(toy: Toy, arguments: tuple[str, ...]) -> None:
    session = await toy.call("session.login_with_password", "root", PASSWORD, *arguments)
    assert await toy.call("session.get_originator", session, session) == "".join(arguments[1:])


async def test_wrong_password_costs_some_seconds(toy: Toy) -> None:
    attempt = asyncio.create_task(toy.fails("session.login_with_password", "root", "wrong"))
    await toy.clock.until_asleep()
    due = toy.clock.next_due()
    assert due is not None
    assert DELAY[0] <= due <= DELAY[1]
    await toy.clock.advance(DELAY[0] - 0.01)
    assert not attempt.done()
    await toy.clock.advance(DELAY[1])
    assert (await attempt)[:2] == ("SESSION_AUTHENTICATION_FAILED", "root")


@pytest.mark.parametrize("name", ["nobody", "", "x" * 1000, "root\n"])
async def test_unknown_name_is_like_a_wrong_password(toy: Toy, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "DELAY", (0.0, 0.0))
    code, user, text = await toy.fails("session.login_with_password", name, PASSWORD)
    assert (code, user) == ("SESSION_AUTHENTICATION_FAILED", name[:256])
    assert text == (await toy.fails("session.login_with_password", "root", "wrong"))[2]


async def test_guesses_from_one_address_are_bounded_and_hinder_nobody_else(toy: Toy) -> None:
    guesses = [
        asyncio.create_task(toy.fails("session.login_with_password", "root", f"guess {number}"))
        for number in range(DELAYS_PER_ADDRESS)
    ]
    await toy.clock.until_asleep(DELAYS_PER_ADDRESS)
    refused = await toy.fails("session.login_with_password", "root", PASSWORD)
    assert refused == ("SESSION_AUTHENTICATION_FAILED", "root", "Too many wrong passwords came from this address.")
    await toy.call("session.login_with_password", "root", PASSWORD, origin=Origin("198.51.100.1"))
    await toy.call("session.login_with_password", "", "", origin=LOCAL)
    await toy.clock.advance(DELAY[1])
    assert {(await guess)[0] for guess in guesses} == {"SESSION_AUTHENTICATION_FAILED"}
    assert toy.engine.door.waiting == 0
    await toy.call("session.login_with_password", "root", PASSWORD)


class SlowCheck:
    """Takes as long as the test wants to find that a password is wrong; `right` is right at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.under_way = self.most = 0

    async def verify(self, name: str, password: str) -> bool:
        if password == PASSWORD:
            return True
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.go.wait()
        self.under_way -= 1
        return False


@pytest.mark.parametrize(
    ("addresses", "elsewhere"),
    [
        (["192.0.2.1"] * 30, "192.0.2.2"),
        ([f"2001:db8::{number:x}" for number in range(30)], "2001:db8:0:1::1"),
        ([f"fe80::{number:x}%eth0" for number in range(30)], "unknown"),
    ],
)
async def test_a_flood_of_guesses_takes_turns(toy: Toy, addresses: list[str], elsewhere: str) -> None:
    """Checking is dear. What one machine asks for at once, with all addresses it has, keeps nobody else waiting."""
    slow = SlowCheck()
    users = Users(toy.database, toy.engine.roles, toy.passwords, (slow,))
    door = Door(users, toy.engine.sessions, toy.clock)
    guesses = [asyncio.create_task(door.login("root", "guess", "", Origin(address))) for address in addresses]
    await toy.turns()
    assert slow.under_way == slow.most == CHECKS_PER_ADDRESS
    await door.login("root", PASSWORD, "", Origin(elsewhere))
    guesses[-1].cancel()
    slow.go.set()
    await toy.clock.until_asleep(DELAYS_PER_ADDRESS)
    assert slow.most == CHECKS_PER_ADDRESS
    await toy.clock.advance(DELAY[1])
    results = await asyncio.gather(*guesses, return_exceptions=True)
    texts = Counter(str(error.params[1]) for error in results if isinstance(error, ApiError))
    assert set(texts) == {REFUSED, "Too many wrong passwords came from this address."}
    assert texts[REFUSED] == DELAYS_PER_ADDRESS
    assert isinstance(results[-1], asyncio.CancelledError)
    assert (door.waiting, door._queues) == (0, {})


async def test_waiting_guess_ends_with_its_connection(toy: Toy) -> None:
    guess = asyncio.create_task(toy.fails("session.login_with_password", "root", "wrong"))
    await toy.clock.until_asleep()
    guess.cancel()
    with pytest.raises(asyncio.CancelledError):
        await guess
    assert toy.engine.door.waiting == 0


async def test_least_recently_used_session_makes_room(toy: Toy) -> None:
    first = await toy.root()
    sessions = [await toy.root() for _ in range(SESSION_LIMIT - 1)]
    await toy.clock.advance(1)
    assert await toy.call("session.get_pool", first, first) is False  # a getter's short way counts as use
    fresh = await toy.root()
    assert len(toy.engine.sessions.live) == SESSION_LIMIT
    assert await toy.fails("session.get_pool", sessions[0], first) == ("SESSION_INVALID", sessions[0])
    for session in (first, sessions[1], fresh):
        await toy.call("session.get_pool", session, session)


async def test_session_with_a_running_task_is_not_evicted_and_does_not_expire(toy: Toy) -> None:
    busy, lamp = await toy.root(), toy.lamp()
    task = await toy.call("Async.lamp.repair", busy, lamp)
    await toy.clock.advance(IDLE_LIMIT + 10)
    for _ in range(SESSION_LIMIT + 5):
        await toy.root()
    toy.engine.sessions.sweep()
    assert busy in toy.engine.sessions.live
    toy.pace.set()
    await toy.until(lambda: toy.task(task)["status"] == "success")
    await toy.turns()
    assert await toy.call("task.get_status", busy, task) == "success"  # its end counts as use


async def test_idle_session_expires(toy: Toy) -> None:
    idle, lamp = await toy.root(), toy.lamp()
    await toy.clock.advance(IDLE_LIMIT - 1)
    used = await toy.root()
    await toy.clock.advance(2)
    assert await toy.fails("lamp.get_watts", idle, lamp) == ("SESSION_INVALID", idle)
    toy.engine.sessions.sweep()
    assert toy.database.refs("session") == (used,)


async def test_housekeeping_looks_every_half_minute(toy: Toy) -> None:
    housekeeping = asyncio.create_task(toy.engine.keep_house())
    await toy.root()
    await toy.clock.advance(IDLE_LIMIT + 31)
    assert toy.database.refs("session") == ()
    housekeeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await housekeeping


async def test_last_active_is_exact_when_asked_and_stored_rarely(toy: Toy) -> None:
    session = await toy.root()
    await toy.clock.advance(300)
    await toy.call("session.get_pool", session, session)
    toy.engine.sessions.sweep()
    assert toy.database.get("session", session, "last_active") == "20110930T00:00:00Z"
    assert await toy.call("session.get_last_active", session, session) == "20110930T00:05:00Z"
    await toy.clock.advance(301)
    await toy.call("session.get_pool", session, session)
    toy.engine.sessions.sweep()
    assert toy.database.get("session", session, "last_active") == "20110930T00:10:01Z"


async def test_restart_logs_nobody_out(start: MakeToy, tmp_path: Path) -> None:
    clock = ToyClock()
    toy = await start(clock=clock, path=tmp_path / "state.db")
    root, user = await toy.root(), await toy.session_of("vm-admin")
    await clock.advance(600)
    old = await toy.root()
    await toy.call("session.logout", old)
    await toy.stop()
    toy = await start(clock=clock, path=tmp_path / "state.db")
    assert await toy.call("session.get_auth_user_name", user, root) == "root"
    assert (await toy.fails("session.logout_subject_identifier", user, "x"))[0] == "RBAC_PERMISSION_DENIED"
    assert await toy.call("session.logout_subject_identifier", root, "x") is None
    assert await toy.fails("session.get_pool", old, old) == ("SESSION_INVALID", old)
    await clock.advance(IDLE_LIMIT + 1)
    await toy.stop()
    toy = await start(clock=clock, path=tmp_path / "state.db")
    assert toy.database.refs("session") == ()


async def test_logout_of_an_account_spares_the_caller(toy: Toy) -> None:
    root = await toy.root()
    first, second = await toy.session_of("vm-admin"), await toy.session_of("vm-admin")
    operator = await toy.session_of("pool-operator")
    assert await toy.call("session.get_all_subject_identifiers", root) == ("vm-admin", "pool-operator")
    await toy.call("session.logout_subject_identifier", operator, "vm-admin")
    for session in (first, second):
        assert await toy.fails("session.logout", session) == ("SESSION_INVALID", session)
    await toy.call("session.logout_subject_identifier", operator, "pool-operator")
    await toy.call("session.logout_subject_identifier", operator, "")
    assert await toy.call("session.get_all_subject_identifiers", operator) == ("pool-operator",)
    assert root in toy.engine.sessions.live


async def test_change_password(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "DELAY", (0.0, 0.0))
    session = await toy.call("session.login_with_password", "root", PASSWORD)
    assert (await toy.fails("session.change_password", session, "wrong", "new"))[0] == "CHANGE_PASSWORD_REJECTED"
    assert (await toy.fails("session.change_password", session, PASSWORD, ""))[0] == "CHANGE_PASSWORD_REJECTED"
    assert (await toy.fails("session.change_password", session, PASSWORD, "x" * 5000))[0] == "CHANGE_PASSWORD_REJECTED"
    await toy.call("session.change_password", session, PASSWORD, "new")
    assert (await toy.fails("session.login_with_password", "root", PASSWORD))[0] == "SESSION_AUTHENTICATION_FAILED"
    await toy.call("session.login_with_password", "root", "new")
    admin = await toy.session_of("pool-admin")
    assert (await toy.fails("session.change_password", admin, "x", "y"))[0] == "USER_IS_NOT_LOCAL_SUPERUSER"


async def test_only_root_gets_an_emergency_session(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "DELAY", (0.0, 0.0))
    await toy.engine.users.add("ann", PASSWORD, "pool-admin")
    code = (await toy.fails("session.slave_local_login_with_password", "ann", PASSWORD))[0]
    assert code == "SESSION_AUTHENTICATION_FAILED"
    ordinary = await toy.call("session.login_with_password", "root", PASSWORD)
    for _ in range(SESSION_LIMIT + 1):
        await toy.call("session.slave_local_login_with_password", "root", "", origin=LOCAL)
    assert len(toy.engine.sessions.live) == SESSION_LIMIT + 1
    assert await toy.call("session.local_logout", ordinary) is None
    assert ordinary in toy.engine.sessions.live


async def test_session_whose_object_goes_is_over(toy: Toy) -> None:
    session = await toy.root()
    with toy.database.transaction() as transaction:
        transaction.destroy("session", session)
    assert await toy.fails("lamp.get_all", session) == ("SESSION_INVALID", session)


async def test_context_without_session_has_no_caller(toy: Toy) -> None:
    context = toy.context()
    with pytest.raises(ApiError, match="SESSION_INVALID"):
        _ = context.caller
    assert (context.session, context.origin) == (None, LOCAL)
    assert STRANGER != LOCAL


async def test_a_lent_session_is_good_on_this_machine_for_the_while(toy: Toy) -> None:
    root, operator, lamp = await toy.root(), await toy.session_of("vm-operator"), toy.lamp()
    account = toy.engine.sessions.live[operator].account
    with toy.engine.sessions.lend(account, "a program") as session:
        lent = session.ref
        assert await toy.call("session.get_originator", lent, lent, origin=LOCAL) == "a program"
        assert await toy.call("lamp.get_watts", lent, lamp, origin=LOCAL) == await toy.call(
            "lamp.get_watts", root, lamp
        )
        assert (await toy.fails("lamp.repair", lent, lamp, origin=LOCAL))[0] == "RBAC_PERMISSION_DENIED"
        for method, *params in (("lamp.get_watts", lamp), ("session.logout",), ("Async.lamp.repair", lamp)):
            assert await toy.fails(method, lent, *params) == ("SESSION_INVALID", lent)
        await toy.clock.advance(IDLE_LIMIT + 1)
        toy.engine.sessions.sweep()
        assert await toy.call("lamp.get_watts", lent, lamp, origin=LOCAL) == toy.database.get("lamp", lamp, "watts")
    assert await toy.fails("lamp.get_watts", lent, lamp, origin=LOCAL) == ("SESSION_INVALID", lent)
    assert toy.database.find("session", lent) is None


async def test_a_lent_session_does_not_outlive_the_run_that_lent_it(start: MakeToy, tmp_path: Path) -> None:
    toy = await start(path=tmp_path / "state.db")
    root = await toy.root()
    with toy.engine.sessions.lend(toy.engine.sessions.live[root].account, "a program"):
        await toy.stop()
    toy = await start(path=tmp_path / "state.db")
    assert toy.database.refs("session") == (root,)
    assert toy.engine.sessions.live.keys() == {root}
