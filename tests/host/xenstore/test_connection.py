"""Connections over real sockets: what is answered, what is cut off, what waits, and for how long."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.host.clock import ManualClock
from domzero.host.xenstore.limits import Limits
from domzero.host.xenstore.requests import REQUESTS
from domzero.wire.xenstore import INTRODUCED, PAYLOAD_MAX, RELEASED, Operation, encode
from tests.host.xenstore.peers import Peer, host, until

DONE = b"OK\0"


async def test_requests_are_answered_in_order_with_their_numbers(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        peer = await serving.peer()
        numbers = [peer.send(Operation.WRITE, b"/n/%d\0%d" % (n, n)) for n in range(100)]
        assert [(await peer.answer(number)).payload for number in numbers] == [DONE] * 100
        assert await peer.ask(Operation.READ, b"/n/42\0") == b"42"
        assert (await peer.ask(Operation.DIRECTORY, b"/n\0")).count(b"\0") == 100


async def test_every_operation_with_its_payloads(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        peer = await serving.peer()
        ask = peer.ask
        assert await ask(Operation.WRITE, b"/a/b\0binary\0\xff") == DONE
        assert await ask(Operation.READ, b"/a/b\0") == b"binary\0\xff"
        assert await ask(Operation.MKDIR, b"relative\0") == DONE
        assert await ask(Operation.DIRECTORY, b"/local/domain/0\0") == b"relative\0"
        assert await ask(Operation.DIRECTORY, b"/a/b\0") == b""
        assert await ask(Operation.SET_PERMS, b"/a\0n1\0r2\0") == DONE
        assert await ask(Operation.GET_PERMS, b"/a\0") == b"n1\0r2\0"
        assert await ask(Operation.GET_PERMS, b"@releaseDomain\0") == b"n0\0"
        assert await ask(Operation.SET_PERMS, b"@releaseDomain\0n0\0r2\0") == DONE
        assert await ask(Operation.GET_PERMS, b"@releaseDomain\0") == b"n0\0r2\0"
        assert await ask(Operation.GET_PERMS, b"@else\0") == b"EINVAL\0"
        assert await ask(Operation.RM, b"/a/b\0") == DONE
        assert await ask(Operation.INTRODUCE, b"9\x00-1\x005\0") == DONE
        assert await ask(Operation.IS_DOMAIN_INTRODUCED, b"9\0") == b"T\0"
        assert await ask(Operation.GET_DOMAIN_PATH, b"009\0") == b"/local/domain/9\0"
        assert await ask(Operation.SET_TARGET, b"9\x001\0") == DONE
        assert await ask(Operation.RESUME, b"9\0") == DONE
        assert await ask(Operation.RELEASE, b"9\0") == DONE
        assert await ask(Operation.IS_DOMAIN_INTRODUCED, b"9\0") == b"F\0"
        assert await ask(Operation.RELEASE, b"9\0") == b"ENOENT\0"
        assert await ask(Operation.CONTROL, b"help\0") == b"check help print quota\0"
        assert await ask(Operation.CONTROL, b"check\0") == DONE
        assert await ask(Operation.CONTROL, b"print\0something\0") == DONE
        assert b"nodes: 1000\n" in await ask(Operation.CONTROL, b"quota\0")
        assert b"nodes: 1\n" in await ask(Operation.CONTROL, b"quota\x001\0")
        assert await ask(Operation.CONTROL, b"explode\0") == b"EINVAL\0"


async def test_a_transaction_on_the_wire(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        one, other = await serving.peer(), await serving.peer()
        number = int((await one.ask(Operation.TRANSACTION_START)).rstrip(b"\0"))
        assert await one.ask(Operation.TRANSACTION_START, b"\0", number) == b"EBUSY\0"
        assert await one.ask(Operation.WRITE, b"/a\0new", number) == DONE
        assert await other.ask(Operation.READ, b"/a\0") == b"ENOENT\0"
        assert await other.ask(Operation.READ, b"/a\0", number) == b"ENOENT\0"
        assert await other.ask(Operation.WRITE, b"/a\0first") == DONE
        assert await one.ask(Operation.TRANSACTION_END, b"maybe\0", number) == b"EINVAL\0"
        assert await one.ask(Operation.TRANSACTION_END, b"T\0", number) == b"EAGAIN\0"
        assert await one.ask(Operation.TRANSACTION_END, b"T\0", number) == b"ENOENT\0"
        assert await one.ask(Operation.READ, b"/a\0") == b"first"


async def test_watches_on_the_wire(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await trusted.ask(Operation.WRITE, b"/local/domain/1\0")
        await trusted.ask(Operation.SET_PERMS, b"/local/domain/1\0n1\0")
        number = guest.send(Operation.WATCH, b"control\0tok en\0")
        assert (await guest.message()).request == number
        assert await guest.event() == (b"control", b"tok en")
        await trusted.ask(Operation.WRITE, b"/local/domain/1/control/shutdown\0poweroff")
        assert await guest.event() == (b"control/shutdown", b"tok en")
        assert await guest.ask(Operation.WATCH, b"control\0tok en\0") == b"EEXIST\0"
        number = guest.send(Operation.WRITE, b"control/shutdown\0")
        assert (await guest.message()).request == number, "the reply comes before the events that the request caused"
        assert await guest.event() == (b"control/shutdown", b"tok en")
        assert await guest.ask(Operation.UNWATCH, b"control\0tok en\0") == DONE
        assert await guest.ask(Operation.UNWATCH, b"control\0tok en\0") == b"ENOENT\0"
        await trusted.ask(Operation.WATCH, INTRODUCED.encode() + b"\0t\0")
        assert await trusted.event() == (INTRODUCED.encode(), b"t")
        assert await trusted.ask(Operation.RESET_WATCHES) == DONE
        await trusted.ask(Operation.INTRODUCE, b"8\0001\0001\0")
        await trusted.ask(Operation.IS_DOMAIN_INTRODUCED, b"8\0")
        assert trusted.events == [], "an event would have come before the second reply"


@pytest.mark.parametrize(
    ("operation", "payload", "error"),
    [
        (Operation.READ, b"", b"EINVAL"),
        (Operation.READ, b"/a", b"EINVAL"),
        (Operation.READ, b"/a//b\0", b"EINVAL"),
        (Operation.READ, b"/a\0/b\0", b"EINVAL"),
        (Operation.READ, b"@releaseDomain\0", b"EINVAL"),
        (Operation.READ, b"/" + b"x" * 4000 + b"\0", b"EINVAL"),
        (Operation.WRITE, b"/a", b"EINVAL"),
        (Operation.WRITE, b"\xff\0x", b"EINVAL"),
        (Operation.RM, b"/\0", b"EINVAL"),
        (Operation.SET_PERMS, b"/\0", b"EINVAL"),
        (Operation.SET_PERMS, b"/\0n0", b"EINVAL"),
        (Operation.SET_PERMS, b"/\0\0", b"EINVAL"),
        (Operation.SET_PERMS, b"@nothing\0n0\0", b"EINVAL"),
        (Operation.WATCH, b"/a\0", b"EINVAL"),
        (Operation.WATCH, b"/a b\0t\0", b"EINVAL"),
        (Operation.WATCH, b"@\0t\0", b"EINVAL"),
        (Operation.WATCH_EVENT, b"/a\0t\0", b"ENOSYS"),
        (Operation.ERROR, b"EIO\0", b"ENOSYS"),
        (20, b"1\0", b"ENOSYS"),
        (0xFFFFFFFF, b"", b"ENOSYS"),
        (Operation.TRANSACTION_END, b"T\0", b"ENOENT"),
        (Operation.INTRODUCE, b"0\x001\x001\0", b"EINVAL"),
        (Operation.INTRODUCE, b"1\x001\0", b"EINVAL"),
        (Operation.INTRODUCE, b"1\0x\x001\0", b"EINVAL"),
        (Operation.INTRODUCE, b"40000\x001\x001\0", b"EINVAL"),
        (Operation.SET_TARGET, b"1\x000\0", b"EINVAL"),
        (Operation.GET_DOMAIN_PATH, b"-1\0", b"EINVAL"),
        (Operation.DIRECTORY_PART, b"/\x00-1\0", b"EINVAL"),
        (Operation.DIRECTORY_PART, b"/\x0099\0", b"EINVAL"),
        (Operation.DIRECTORY_PART, b"/\0", b"EINVAL"),
    ],
)
async def test_malformed_requests_get_the_protocols_errors(
    tmp_path: Path, operation: int, payload: bytes, error: bytes
) -> None:
    async with host(tmp_path) as serving:
        peer = await serving.peer()
        assert await peer.ask(operation, payload) == error + b"\0"
        assert await peer.ask(Operation.READ, b"/\0") == b"", "the connection goes on"


async def test_a_guest_may_do_nothing_that_is_the_hosts(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        guest = await serving.peer(1)
        for operation in (number for number, known in REQUESTS.items() if known.privileged):
            assert await guest.ask(operation, b"2\x001\x001\0") == b"EACCES\0"
        assert await guest.ask(Operation.SET_PERMS, b"@releaseDomain\0n1\0") == b"EACCES\0"
        assert await guest.ask(Operation.READ, b"/\0") == b"EACCES\0"
        assert await guest.ask(Operation.GET_DOMAIN_PATH, b"2\0") == b"/local/domain/2\0"
        assert await guest.ask(Operation.READ, b"/" + b"x" * 1100 + b"\0") == b"EINVAL\0"


async def test_long_lists_come_in_parts(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        peer = await serving.peer()
        names = [f"{number:040}" for number in range(300)]
        for name in names:
            await peer.ask(Operation.MKDIR, f"/long/{name}\0".encode())
        assert await peer.ask(Operation.DIRECTORY, b"/long\0") == b"E2BIG\0"
        found = b""
        while not found.endswith(b"\0\0"):
            part = await peer.ask(Operation.DIRECTORY_PART, b"/long\0%d\0" % len(found))
            assert len(part) <= PAYLOAD_MAX
            found += part.partition(b"\0")[2]
        assert found[:-2].decode().split("\0") == names
        assert (await peer.ask(Operation.DIRECTORY_PART, b"/long/0\0000\0")) == b"ENOENT\0"


async def test_an_event_that_is_too_long_for_a_message_is_left_out(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        peer = await serving.peer()
        token = b"t" * (PAYLOAD_MAX - 5)
        await peer.ask(Operation.WATCH, b"/a\0" + token + b"\0")
        assert await peer.event() == (b"/a", token)
        await peer.ask(Operation.MKDIR, b"/a/b\0")
        await peer.ask(Operation.SET_PERMS, b"/a\0n1\0")
        assert await peer.event() == (b"/a", token)


async def test_too_long_a_message_ends_the_connection_after_the_replies_to_those_before(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        peer, other = await serving.peer(), await serving.peer()
        number = peer.send(Operation.READ, b"/\0")
        peer.writer.write(struct.pack("=IIII", Operation.READ, 2, 0, PAYLOAD_MAX + 1))
        assert (await peer.answer(number)).payload == b""
        assert await peer.is_closed()
        assert await other.ask(Operation.READ, b"/\0") == b""


async def test_who_vanishes_in_mid_message_leaves_nothing(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await guest.ask(Operation.WATCH, b"/a\0t\0")
        await guest.ask(Operation.TRANSACTION_START)
        guest.writer.write(encode(Operation.READ, 1, 0, b"/long/path\0")[:-3])
        await guest.writer.drain()
        guest.writer.close()
        domain = serving.store.domains[1]
        while domain.connections:
            await trusted.ask(Operation.READ, b"/\0")
        assert (domain.watches, domain.transactions) == (0, 0)


async def test_a_new_program_on_the_same_stream_begins_anew(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        guest = await serving.peer(1)
        await guest.ask(Operation.WATCH, b"/a\0t\0")
        guest.writer.write(encode(Operation.READ, 1, 0, b"/never/finished\0")[:-3])
        (connection,) = serving.store.domains[1].connections
        await until(lambda: connection._decoder.waiting)  # type: ignore[attr-defined]  # it is a Connection
        connection.begin_anew()  # type: ignore[attr-defined]
        assert serving.store.domains[1].watches == 0
        assert await guest.ask(Operation.GET_DOMAIN_PATH, b"1\0") == b"/local/domain/1\0"


async def test_a_released_domain_is_cut_off_and_cannot_come_back(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await guest.ask(Operation.GET_DOMAIN_PATH, b"1\0")
        await trusted.ask(Operation.WATCH, RELEASED.encode() + b"\0t\0")
        await trusted.event()
        assert await trusted.ask(Operation.RELEASE, b"1\0") == DONE
        assert await trusted.event() == (RELEASED.encode(), b"t")
        assert await guest.is_closed()
        assert await (await serving.peer(1)).is_closed()


async def test_a_domain_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    async with host(tmp_path, limits=Limits(connections=2)) as serving:
        peers = [await serving.peer(1) for _ in range(3)]
        assert await peers[2].is_closed()
        assert await peers[0].ask(Operation.GET_DOMAIN_PATH, b"1\0") == b"/local/domain/1\0"


async def test_a_guest_that_asks_too_fast_waits_and_is_not_refused(tmp_path: Path) -> None:
    clock = ManualClock()
    async with host(tmp_path, clock, Limits(rate=10.0, burst=25.0)) as serving:
        guest, again, trusted = await serving.peer(1), await serving.peer(1), await serving.peer()
        assert await guest.ask(Operation.TRANSACTION_START) == b"1\0"
        for _ in range(5):
            assert await guest.ask(Operation.GET_DOMAIN_PATH, b"1\0") == b"/local/domain/1\0"
        number, other = guest.send(Operation.TRANSACTION_START, b"\0"), again.send(Operation.GET_DOMAIN_PATH, b"1\0")
        while len(clock._sleepers) < 2:
            assert await trusted.ask(Operation.READ, b"/\0") == b"", "nobody else waits"
        await clock.advance(0.15)
        assert (await again.answer(other)).payload == b"/local/domain/1\0"
        await clock.advance(1.8)
        waiting = asyncio.ensure_future(guest.answer(number))
        await trusted.ask(Operation.READ, b"/\0")
        assert not waiting.done()
        await clock.advance(0.2)
        assert (await waiting).payload == b"2\0"


async def test_many_events_cost_more_than_few(tmp_path: Path) -> None:
    clock = ManualClock()
    async with host(tmp_path, clock, Limits(rate=10.0, burst=37.0)) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await trusted.ask(Operation.SET_PERMS, b"/\0b0\0")
        for number in range(32):
            assert await guest.ask(Operation.WATCH, b"/\0%d\0" % number) == DONE
        assert await guest.ask(Operation.MKDIR, b"/a\0") == DONE
        number = guest.send(Operation.READ, b"/\0")
        await until(lambda: clock.next_due() is not None)
        assert clock.next_due() == 0.1, "37 tokens went for 32 watches, one change and its 32 events"
        await clock.advance(0.1)
        assert (await guest.answer(number)).payload == b""


async def test_events_reach_a_guest_that_waits_for_its_turn(tmp_path: Path) -> None:
    clock = ManualClock()
    async with host(tmp_path, clock, Limits(rate=1.0, burst=2.0)) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await trusted.ask(Operation.SET_PERMS, b"/\0r0\0")
        await guest.ask(Operation.WATCH, b"/\0t\0")
        await guest.ask(Operation.READ, b"/\0")
        guest.send(Operation.READ, b"/\0")
        await until(lambda: clock.next_due() is not None)
        assert await guest.event() == (b"/", b"t")
        await trusted.ask(Operation.MKDIR, b"/new\0")
        assert await guest.event() == (b"/new", b"t")


async def test_who_does_not_read_replies_is_not_read_either(tmp_path: Path) -> None:
    async with host(tmp_path, limits=Limits(rate=1e9, burst=1e9)) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await trusted.ask(Operation.WRITE, b"/big\0" + bytes(4000))
        await trusted.ask(Operation.SET_PERMS, b"/big\0r0\0")
        guest.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
        numbers = [guest.send(Operation.READ, b"/big\0") for _ in range(5000)]
        (connection,) = serving.store.domains[1].connections
        while not connection._full:  # type: ignore[attr-defined]
            assert await trusted.ask(Operation.READ, b"/\0") == b""
        transport = connection._transport  # type: ignore[attr-defined]
        for _ in range(50):
            await trusted.ask(Operation.READ, b"/\0")
        assert transport.get_write_buffer_size() < 65536 + 32 * 4112 * 2
        guest.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for number in numbers:
            assert len((await guest.answer(number)).payload) == 4000


async def test_who_does_not_read_events_is_cut_off(tmp_path: Path) -> None:
    limits = Limits(rate=1e9, burst=1e9, unread=4096, events=100)
    async with host(tmp_path, limits=limits) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await trusted.ask(Operation.SET_PERMS, b"/\0r0\0")
        await guest.ask(Operation.WATCH, b"/\0" + b"t" * 1000 + b"\0")
        guest.writer.transport.pause_reading()  # type: ignore[attr-defined]
        number = 0
        while serving.store.domains[1].connections:
            number += 1
            await trusted.ask(Operation.MKDIR, b"/%d\0" % number)
        assert serving.store.domains[1].watches == 0
        guest.writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((EOFError, ConnectionError)):
            await endless_events(guest)


async def endless_events(peer: Peer) -> None:
    while True:
        await peer.event()


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                encode,
                st.integers(0, 24),
                st.integers(0, 2),
                st.integers(0, 2),
                st.one_of(
                    st.binary(max_size=24),
                    st.lists(st.sampled_from([b"/", b"/a", b"a", b"@x", b"T", b"1", b"n1", b""]), max_size=3).map(
                        lambda parts: b"".join(part + b"\0" for part in parts)
                    ),
                ),
            ),
        ),
        max_size=12,
    )
)
async def test_whatever_a_guest_sends_others_are_served_and_nothing_of_theirs_changes(pieces: list[bytes]) -> None:
    with TemporaryDirectory(prefix="xs") as directory:
        async with host(Path(directory)) as serving:
            guest, trusted = await serving.peer(1), await serving.peer()
            await trusted.ask(Operation.WRITE, b"/mine\0precious")
            for piece in pieces:
                guest.writer.write(piece)
            guest.writer.write_eof()
            while serving.store.domains[1].connections:
                assert await trusted.ask(Operation.READ, b"/mine\0") == b"precious"
            assert await trusted.ask(Operation.DIRECTORY, b"/\0") == b"mine\0"
            assert await trusted.ask(Operation.CONTROL, b"check\0") == DONE
            assert serving.store.domains[1].watches == 0
