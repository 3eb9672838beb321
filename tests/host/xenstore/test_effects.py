"""What operations do that answer no more than OK: seen by others, and by what comes next."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.wire.xenstore import RELEASED, Operation
from tests.host.xenstore.peers import Peer, host

DONE = b"OK\0"


async def begun(peer: Peer) -> int:
    """The number of a new transaction."""
    return int((await peer.ask(Operation.TRANSACTION_START)).rstrip(b"\0"))


async def test_an_introduced_domain_may_connect_and_one_that_was_not_may_not(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        trusted = await serving.peer()
        assert await (await serving.peer(9)).is_closed()
        assert await trusted.ask(Operation.INTRODUCE, b"9\0001\0001\0") == DONE
        assert await trusted.ask(Operation.INTRODUCE, b"9\0001\0001\0") == DONE, "again, as after a migration"
        guest = await serving.peer(9)
        assert await guest.ask(Operation.GET_DOMAIN_PATH, b"9\0") == b"/local/domain/9\0"
        assert await guest.ask(Operation.IS_DOMAIN_INTRODUCED, b"9\0") == b"T\0"


async def test_a_target_is_acted_for_by_whom_it_was_given_to_and_not_the_other_way(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        trusted, emulator, target = await serving.peer(), await serving.peer(1), await serving.peer(2)
        for domid in (b"1", b"2"):
            await trusted.ask(Operation.WRITE, b"/local/domain/" + domid + b"\0")
            await trusted.ask(Operation.SET_PERMS, b"/local/domain/" + domid + b"\0n" + domid + b"\0")
        assert await emulator.ask(Operation.WRITE, b"/local/domain/2/x\0v") == b"EACCES\0"
        assert await trusted.ask(Operation.SET_TARGET, b"1\0002\0") == DONE
        assert await emulator.ask(Operation.WRITE, b"/local/domain/2/x\0v") == DONE
        assert await target.ask(Operation.DIRECTORY, b"/local/domain/2\0") == b"x\0"
        assert await trusted.ask(Operation.GET_PERMS, b"/local/domain/2/x\0") == b"n1\0", "as xenstored has it"
        assert await target.ask(Operation.WRITE, b"/local/domain/1/x\0v") == b"EACCES\0"
        assert await trusted.ask(Operation.SET_TARGET, b"1\0007\0") == b"ENOENT\0"
        assert await trusted.ask(Operation.SET_TARGET, b"7\0001\0") == b"ENOENT\0"


async def test_a_resumed_domain_that_shuts_down_is_told_of_again(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        trusted = await serving.peer()
        await trusted.ask(Operation.WATCH, RELEASED.encode() + b"\0t\0")
        await trusted.event()

        async def told() -> int:
            await trusted.ask(Operation.READ, b"/\0")
            count, trusted.events = len(trusted.events), []
            return count

        counts = []
        for resume in (False, False, True):
            if resume:
                assert await trusted.ask(Operation.RESUME, b"1\0") == DONE
            serving.store.shut_down(1)
            counts.append(await told())
        assert counts == [1, 0, 1]
        assert await trusted.ask(Operation.RESUME, b"7\0") == b"ENOENT\0"
        assert await trusted.ask(Operation.RESUME, b"0\0") == b"EINVAL\0"


async def test_reset_watches_ends_transactions_too_and_those_of_nobody_else(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        one, other = await serving.peer(1), await serving.peer(1)
        mine, theirs = await begun(one), await begun(other)
        await one.ask(Operation.WATCH, b"@releaseDomain\0t\0")
        await other.ask(Operation.WATCH, b"@releaseDomain\0t\0")
        assert await one.ask(Operation.RESET_WATCHES) == DONE
        assert await one.ask(Operation.TRANSACTION_END, b"T\0", mine) == b"ENOENT\0"
        assert await one.ask(Operation.UNWATCH, b"@releaseDomain\0t\0") == b"ENOENT\0"
        assert await other.ask(Operation.TRANSACTION_END, b"T\0", theirs) == DONE
        assert await other.ask(Operation.UNWATCH, b"@releaseDomain\0t\0") == DONE


async def test_parts_of_a_list_tell_whether_it_is_still_the_same_list(tmp_path: Path) -> None:
    async with host(tmp_path) as serving:
        peer = await serving.peer()
        for name in (b"a", b"b"):
            await peer.ask(Operation.MKDIR, b"/list/" + name + b"\0")

        async def generation() -> bytes:
            said, _, part = (await peer.ask(Operation.DIRECTORY_PART, b"/list\0000\0")).partition(b"\0")
            assert part.endswith(b"\0\0")
            return said

        first = await generation()
        await peer.ask(Operation.WRITE, b"/list/a\0value")
        await peer.ask(Operation.WRITE, b"/list/a/deeper\0")
        assert await generation() == first, "a client need not begin anew"
        seen = {first}
        for operation, payload in (
            (Operation.MKDIR, b"/list/c\0"), (Operation.RM, b"/list/a\0"), (Operation.MKDIR, b"/list/a\0"),
        ):  # fmt: skip
            await peer.ask(operation, payload)
            assert await generation() not in seen
            seen.add(await generation())


FOREIGN = {
    Operation.READ: b"/a\0",
    Operation.DIRECTORY: b"/a\0",
    Operation.DIRECTORY_PART: b"/a\0000\0",
    Operation.GET_PERMS: b"/a\0",
    Operation.WRITE: b"/a\0stolen",
    Operation.MKDIR: b"/a/b\0",
    Operation.RM: b"/a\0",
    Operation.SET_PERMS: b"/a\0b1\0",
    Operation.TRANSACTION_END: b"T\0",
}


@pytest.mark.parametrize("domid", [0, 1])
async def test_a_transaction_is_of_the_connection_that_began_it(tmp_path: Path, domid: int) -> None:
    async with host(tmp_path) as serving:
        owner, other = await serving.peer(), await serving.peer(domid)
        await owner.ask(Operation.WRITE, b"/a\0before")
        await owner.ask(Operation.SET_PERMS, b"/a\0b0\0")
        number = await begun(owner)
        await owner.ask(Operation.WRITE, b"/a\0within", number)
        for operation, payload in FOREIGN.items():
            assert await other.ask(operation, payload, number) == b"ENOENT\0", operation
        assert await other.ask(Operation.READ, b"/a\0") == b"before"
        assert await owner.ask(Operation.TRANSACTION_END, b"T\0", number) == DONE
        assert await other.ask(Operation.READ, b"/a\0") == b"within"
