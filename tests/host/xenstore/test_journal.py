"""The store outlives its daemon: what is read back after a kill, half a frame, and a file written anew."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.clock import ManualClock
from domzero.host.xenstore import frames, journal
from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.journal import Journal
from domzero.host.xenstore.service import xenstore
from domzero.host.xenstore.store import State, Store
from domzero.host.xenstore.tree import walk
from domzero.wire.xenstore import RELEASED, Access, Permission, XenstoreError
from tests.host.xenstore.peers import until

BOOT = "this one"


async def opened(path: Path, boot: str = BOOT) -> tuple[Store, Journal]:
    """A store as a daemon that starts finds it. It is never closed properly: that is what dying is like."""
    kept = Journal(path, boot, ManualClock())
    state = await kept.open()
    return Store(lambda: 0.0, state=state, recorder=kept), kept


def content(store: Store | State) -> list[tuple[str, bytes, object]]:
    return [(path, node.value, node.permissions) for path, node in walk("/", store.root)]


async def test_everything_that_was_answered_is_there_again(tmp_path: Path) -> None:
    store, _ = await opened(tmp_path / "j")
    host = Client(store, 0)
    host.write("/local/domain/5/name", b"hostile \xff\0\n")
    host.set_permissions("/local/domain/5", (Permission(5, Access.NONE), Permission(6, Access.BOTH)))
    for domid in (5, 6, 7):
        store.introduce(domid)
    store.set_target(6, 5)
    store.set_special(RELEASED, (Permission(0, Access.NONE), Permission(5, Access.READ)))
    host.write("/local/domain/7/data", b"")
    store.release(7)
    host.write("/gone/with/all", b"")
    host.remove("/gone")
    number = host.begin()
    host.write("/both/1", b"1", number)
    host.write("/both/2", b"2", number)
    host.finish(number, commit=True)
    uncommitted = host.begin()
    host.write("/never", b"", uncommitted)
    again, _ = await opened(tmp_path / "j")
    assert content(again) == content(store)
    assert again.state.domains == {5: None, 6: 5}
    assert again.specials == store.specials
    assert again.check()
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600
    third, _ = await opened(tmp_path / "j")
    assert content(third) == content(store)


async def test_watches_and_transactions_end_with_the_daemon(tmp_path: Path) -> None:
    store, _ = await opened(tmp_path / "j")
    host = Client(store, 0)
    host.watch("/", b"t")
    number = host.begin()
    again, _ = await opened(tmp_path / "j")
    with pytest.raises(XenstoreError, match="ENOENT"):
        Client(again, 0).finish(number, commit=True)
    assert again.watches.at("/") == ()


async def test_another_boot_begins_with_nothing(tmp_path: Path) -> None:
    store, _ = await opened(tmp_path / "j")
    Client(store, 0).write("/a", b"")
    other, _ = await opened(tmp_path / "j", boot="another")
    assert len(content(other)) == 1


async def test_half_a_frame_never_happened_and_what_follows_is_found_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = await opened(tmp_path / "j")
    host = Client(store, 0)
    host.write("/whole", b"")
    number = host.begin()
    host.write("/half/1", b"x", number)
    host.write("/half/2", b"x", number)
    host.finish(number, commit=True)
    size = (tmp_path / "j").stat().st_size
    os.truncate(tmp_path / "j", size - 1)
    again, _ = await opened(tmp_path / "j")
    assert [path for path, _, _ in content(again)] == ["/", "/whole"]
    assert "not whole" in caplog.text
    Client(again, 0).write("/later", b"")
    third, _ = await opened(tmp_path / "j")
    assert [path for path, _, _ in content(third)] == ["/", "/whole", "/later"]


@given(st.binary(max_size=200))
def test_garbage_is_no_state(garbage: bytes) -> None:
    good = frames.encode([frames.domain(3, None)])
    state, left = frames.decode(good + b"\xff\xff\xff\xff" + garbage)
    assert state.domains == {3: None}
    assert left == 4 + len(garbage)


async def test_a_long_file_is_written_anew_and_loses_nothing_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SHORTEST", 2000)
    store, kept = await opened(tmp_path / "j")
    host = Client(store, 0)
    host.write("/a", b"")
    keeping = asyncio.ensure_future(kept.keep_short(lambda: store.state))
    while (tmp_path / "j").stat().st_size < 2000:
        host.write("/a", bytes(100))
    begun = (tmp_path / "j").stat().st_ino
    number = 0
    while (tmp_path / "j").stat().st_ino == begun:
        number += 1
        host.write(f"/meanwhile/{number}", b"")
        await asyncio.sleep(0)
    host.write("/after", b"")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    again, _ = await opened(tmp_path / "j")
    assert content(again) == content(store)
    assert os.listdir(tmp_path) == ["j"]


async def test_a_file_system_that_is_full_stops_nobody_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock()
    kept = Journal(tmp_path / "d" / "j", BOOT, clock)
    (tmp_path / "d").mkdir()
    store = Store(lambda: 0.0, state=await kept.open(), recorder=kept)
    os.close(kept._file)
    kept._file = os.open("/dev/full", os.O_WRONLY)
    (tmp_path / "d").rename(tmp_path / "away")
    keeping = asyncio.ensure_future(kept.keep_short(lambda: store.state))
    host = Client(store, 0)
    host.write("/a", b"1")
    assert host.read("/a") == b"1"
    await until(lambda: clock.next_due() is not None)
    assert "cannot be written" in caplog.text
    (tmp_path / "away").rename(tmp_path / "d")
    host.write("/b", b"2")
    await clock.advance(journal.RETRY)
    await until(lambda: kept._file >= 0)
    host.write("/c", b"3")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    again, _ = await opened(tmp_path / "d" / "j")
    assert [path for path, _, _ in content(again)] == ["/", "/a", "/b", "/c"]


async def test_the_service_keeps_what_the_daemon_itself_wrote(tmp_path: Path) -> None:
    for value in (b"first", b"second"):
        async with xenstore(tmp_path / "j", ManualClock()) as service:
            assert not service.local.exists("/v") or service.local.read("/v") == b"first"
            service.local.write("/v", value)
    async with xenstore(tmp_path / "j", ManualClock()) as service:
        assert service.local.read("/v") == b"second"
