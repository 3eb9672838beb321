"""The index of a reference field agrees with the rows, whatever happens to them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from domzero.engine.database import Database
from domzero.engine.referrers import Referrers
from domzero.host.clock import ManualClock
from domzero.idl.types import NULL_REF
from tests.engine.toy import GRAPH


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    database = await Database.open(GRAPH, None, ManualClock())
    yield database
    await database.close()


async def test_it_agrees_with_the_rows(database: Database) -> None:
    rng = random.Random(7)
    with database.transaction() as transaction:
        depots = [transaction.create("depot", {}) for _ in range(3)]
        crates = [transaction.create("crate", {"depot": depots[0]}) for _ in range(5)]
    index = Referrers(database, "crate", "depot")
    for _ in range(300):
        with database.transaction() as transaction:
            for crate in rng.sample(crates, min(2, len(crates))):
                if rng.random() < 0.1:
                    transaction.destroy("crate", crate)
                    crates.remove(crate)
                else:
                    transaction.update("crate", crate, depot=rng.choice([*depots, NULL_REF, "OpaqueRef:gone"]))
            if rng.random() < 0.3:
                crates.append(transaction.create("crate", {"depot": rng.choice(depots)}))
        for depot in [*depots, "OpaqueRef:gone"]:
            wanted = {ref for ref, row in database.rows("crate").items() if row.record["depot"] == depot}
            assert set(index.of(depot)) == wanted
        assert index.of(NULL_REF) == ()
