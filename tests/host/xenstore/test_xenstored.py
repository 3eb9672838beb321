"""The same requests to Debian's own xenstored: it says the same, and tells watchers the same.

Transactions run one at a time here: xenstored reads a node when a transaction first asks for it, while the protocol's
document, and domzero, have it see the whole tree as it was.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from bench.xenstored import MissingError, xenstored

from domzero.wire.xenstore import Message, Operation
from tests.host.xenstore.peers import Peer, host

pytestmark = pytest.mark.slow

PATHS = (b"/d", b"/d/a", b"/d/a/b", b"/d/a/b/c", b"/d/e", b"/d/q/r/s", b"/d/z@-_9")
ODD = (b"/d/e/", b"/d//x", b"", b"/d/f g", b"/d/\xc3\xa9")
PERMISSIONS = (b"n0", b"r1", b"b2", b"w3", b"x1", b"n", b"n1x")
STEPS = 800


class Pair:
    """One client of each, asked the same."""

    def __init__(self, ours: Peer, theirs: Peer) -> None:
        self.peers = (ours, theirs)
        self.transactions = [0, 0]

    async def ask(self, operation: int, payload: bytes) -> list[Message]:
        """What both answer, listings in one order and the numbers of transactions left out."""
        answers = []
        for peer, transaction in zip(self.peers, self.transactions, strict=True):
            answer = await peer.answer(peer.send(operation, payload, transaction))
            if operation == Operation.DIRECTORY:
                answer = answer._replace(payload=b"\0".join(sorted(answer.payload.split(b"\0"))))
            answers.append(answer._replace(transaction=0))
        return answers

    async def begin(self) -> None:
        found = await self.ask(Operation.TRANSACTION_START, b"\0")
        self.transactions = [int(answer.payload[:-1]) for answer in found]

    async def end(self, how: bytes) -> list[Message]:
        found = await self.ask(Operation.TRANSACTION_END, how)
        self.transactions = [0, 0]
        return found


def request(choose: random.Random) -> tuple[int, bytes]:
    """Anything but the beginning and end of a transaction."""
    path = choose.choice(PATHS if choose.random() < 0.9 else ODD)
    plain = (Operation.READ, Operation.DIRECTORY, Operation.MKDIR, Operation.RM, Operation.GET_PERMS)
    kind = choose.random()
    if kind < 0.5:
        return choose.choice(plain), path + b"\0"
    if kind < 0.75:
        return Operation.WRITE, path + b"\0" + choose.randbytes(choose.randrange(3))
    if kind < 0.85:
        entries = [choose.choice(PERMISSIONS) for _ in range(choose.randrange(3))]
        return Operation.SET_PERMS, path + b"\0" + b"".join(entry + b"\0" for entry in entries)
    # A watch that cannot be is asked back with another error.
    path = choose.choice(PATHS)
    return choose.choice((Operation.WATCH, Operation.UNWATCH)), path + b"\0" + choose.choice((b"t\0", b"u\0"))


@pytest.mark.parametrize("transactions", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_it_says_and_tells_what_xenstored_does(tmp_path: Path, seed: int, transactions: bool) -> None:
    choose = random.Random(seed)
    try:
        real = xenstored(tmp_path)
        _, path = await asyncio.to_thread(real.__enter__)
    except MissingError as error:
        pytest.skip(str(error))
    (tmp_path / "ours").mkdir()
    try:
        async with host(tmp_path / "ours") as serving:
            pairs = [Pair(await serving.peer(), await serving.peer_of(path)) for _ in range(3)]
            await pairs[0].ask(Operation.MKDIR, b"/d\0")
            await same(pairs, choose, transactions)
            for pair in pairs:
                # How often is nobody's promise: an event that waits already is not told again.
                ours, beside = [set(await all_events(peer)) for peer in pair.peers]
                # Of a node that was removed and made anew in one transaction, xenstored says nothing.
                assert ours >= beside if transactions else ours == beside
    finally:
        await asyncio.to_thread(real.__exit__, None, None, None)


async def same(pairs: list[Pair], choose: random.Random, transactions: bool) -> None:
    within: Pair | None = None
    for step in range(STEPS):
        pair = within or choose.choice(pairs)
        if transactions and within is None and choose.random() < 0.05:
            within = pair
            await pair.begin()
        elif within is not None and choose.random() < 0.2:
            ours, theirs = await pair.end(choose.choice((b"T\0", b"T\0", b"F\0")))
            assert ours == theirs, step
            within = None
        else:
            operation, payload = request(choose)
            ours, theirs = await pair.ask(operation, payload)
            assert ours == theirs, (step, operation, payload)


async def all_events(peer: Peer) -> list[tuple[bytes, bytes]]:
    """Those that came, up to now: what is asked afterwards is answered after them."""
    await peer.ask(Operation.READ, b"/\0")
    events, peer.events = peer.events, []
    return events
