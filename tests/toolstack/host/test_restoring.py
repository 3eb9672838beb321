"""Which databases a host can go on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.datamodel.graph import GRAPH
from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.host.clock import ManualClock
from domzero.toolstack.host.backup import BRAND, FORMAT
from domzero.toolstack.host.restore import LARGEST, BackupError, manifest_files
from domzero.toolstack.host.restoring import check


@pytest.fixture
async def databases() -> AsyncIterator[tuple[Database, Database]]:
    """Two empty ones: the one to be restored, and the present one."""
    both = [await Database.open(GRAPH, None, ManualClock()) for _ in range(2)]
    yield both[0], both[1]
    for database in both:
        await database.close()


def fill(database: Database, *interfaces: dict[str, Any], **pool: Any) -> None:
    with database.transaction() as transaction:
        host = transaction.create("host", {})
        transaction.create("pool", {"master": host, **pool})
        for interface in interfaces:
            transaction.create("PIF", {"host": host, "physical": True, **interface})


def refusal(stored: Database, present: Database) -> tuple[str, ...]:
    try:
        check(stored.tables, (), present.tables)
    except ApiError as error:
        return error.description
    return ()


def test_interfaces(databases: tuple[Database, Database]) -> None:
    stored, present = databases
    fill(stored, {"device": "eth0"}, {"device": "eth1"}, {"device": "bond0", "physical": False})
    fill(present, {"device": "eth0", "management": True}, {"device": "eth1"}, {"device": "eth2"})
    assert refusal(stored, present) == ()


def test_the_interface_that_the_host_is_managed_by_must_be_known(databases: tuple[Database, Database]) -> None:
    stored, present = databases
    fill(stored, {"device": "eth1"})
    fill(present, {"device": "eth0", "management": True}, {"device": "eth1"})
    assert refusal(stored, present) == ("RESTORE_TARGET_MGMT_IF_NOT_IN_BACKUP",)


def test_an_interface_that_is_not_there(databases: tuple[Database, Database]) -> None:
    stored, present = databases
    fill(stored, {"device": "eth0"}, {"device": "eth7"})
    fill(present, {"device": "eth0", "management": True})
    assert refusal(stored, present) == ("RESTORE_TARGET_MISSING_DEVICE", "eth7")


def test_what_is_not_one_host(databases: tuple[Database, Database]) -> None:
    stored, present = databases
    fill(present)
    assert refusal(stored, present)[0] == "COULD_NOT_IMPORT_DATABASE"
    fill(stored, master="OpaqueRef:gone")
    assert "coordinator" in refusal(stored, present)[1]
    fill(stored)
    assert "2 hosts" in refusal(stored, present)[1]


VALUES = st.recursive(
    st.one_of(
        st.none(), st.integers(-1, 1 << 40), st.sampled_from(["state.db", "size", "domzero", "x", FORMAT, BRAND])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "size", "sha256"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.one_of(
        st.binary(max_size=40),
        VALUES.map(orjson.dumps),
        VALUES.map(lambda files: orjson.dumps({"product_brand": BRAND, "format": FORMAT, "files": files})),
    )
)
def test_whatever_a_manifest_says(content: bytes) -> None:
    try:
        found = manifest_files(content)
    except (BackupError, ApiError):
        return
    assert all(0 <= one.size <= LARGEST[one.name] for one in found)
