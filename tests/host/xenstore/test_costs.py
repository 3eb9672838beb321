"""What a guest's requests cost it, beyond one token each: as much as the work that they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from domzero.host.xenstore.limits import Limits
from domzero.wire.xenstore import Operation
from tests.host.xenstore.peers import Host, host

DONE = b"OK\0"
DEEP = b"a" + b"/a" * 399
"""Four hundred nodes, made by one request and removed by one."""
TOKENS = 1000


def has_left(serving: Host, tokens: int) -> bool:
    """Whether domain 1 has exactly so many tokens, which are gone then."""
    bucket, now = serving.store.domains[1].bucket, serving.store.now()
    return bucket.take(tokens, now) == 0 and bucket.take(1, now) > 0


@pytest.mark.parametrize(
    ("requests", "cost"),
    [
        ([(Operation.MKDIR, b"few/nodes\0"), (Operation.RM, b"few\0")], 2),
        ([(Operation.MKDIR, DEEP + b"\0")], 1 + (400 * 8 + 403) // 64),
        ([(Operation.MKDIR, DEEP + b"\0"), (Operation.RM, b"a\0")], 2 + (400 * 8 + 403) // 64 + (400 * 8 + 4) // 64),
        ([(Operation.MKDIR, DEEP + b"\0"), (Operation.WRITE, DEEP + b"\0x")], 2 + 3603 // 64 + (8 + 403) // 64),
        ([(Operation.READ, DEEP + b"\0")], 1),
    ],
)
async def test_what_is_done_to_many_nodes_costs_more(
    tmp_path: Path, requests: list[tuple[Operation, bytes]], cost: int
) -> None:
    async with host(tmp_path, ManualClock(), Limits(rate=1.0, burst=TOKENS)) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await trusted.ask(Operation.WRITE, b"/local/domain/1\0")
        await trusted.ask(Operation.SET_PERMS, b"/local/domain/1\0n1\0")
        for operation, payload in requests:
            assert await guest.ask(operation, payload) in (DONE, b"ENOENT\0")
        assert has_left(serving, TOKENS - cost)


async def test_what_is_done_in_a_transaction_and_again_at_its_end_costs_as_much(tmp_path: Path) -> None:
    async with host(tmp_path, ManualClock(), Limits(rate=1.0, burst=TOKENS)) as serving:
        guest, trusted = await serving.peer(1), await serving.peer()
        await trusted.ask(Operation.WRITE, b"/local/domain/1\0")
        await trusted.ask(Operation.SET_PERMS, b"/local/domain/1\0n1\0")
        number = int((await guest.ask(Operation.TRANSACTION_START)).rstrip(b"\0"))
        assert await guest.ask(Operation.MKDIR, DEEP + b"\0", number) == DONE
        assert await guest.ask(Operation.TRANSACTION_END, b"T\0", number) == DONE
        assert has_left(serving, TOKENS - 20 - 1 - 3603 // 64 - 1 - 3200 // 64)
