"""What the next daemon makes of an import during which the last one was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.clock import ManualClock
from tests.toolstack.transfer.peers import import_bytes
from tests.toolstack.transfer.test_machines_import import ROWS, nothing_left
from tests.toolstack.vm.test_adoption import killed_at
from tests.toolstack.vm.world import world
from tests.xva_writer import machine, xva

pytestmark = pytest.mark.slow


IN_ALL = 9
"""Two disks of three steps each, machines, content, end. At 2 and 5 a disk is on its medium and has no row yet, as with
any new disk: the next look at the repository shows it."""


@pytest.mark.parametrize("number", sorted(set(range(IN_ALL)) - {2, 5}))
async def test_a_killed_import_leaves_nothing(tmp_path: Path, number: int) -> None:
    (tmp_path / "first").mkdir()
    clock, copy = ManualClock(), tmp_path / "copy"
    archive = xva(machine("web", {"0": b"\x01" * 3_000_000, "1": b"second"}, network="theirs"))
    async with world(tmp_path / "first", database=tmp_path / "first" / "state.db", clock=clock) as host:
        await host.machine(disks=1, name_label="another")
        before = {cls: set(host.stack.database.refs(cls)) for cls in ROWS}
        files = {name for name in host.files() if name.endswith(".raw")}
        await host.stack.database.durable()
        async with nothing_left(host):
            killed = await killed_at(number, tmp_path / "first", copy, import_bytes(host, archive))
    assert killed == (number < IN_ALL)
    if not killed:
        return
    async with world(copy, database=copy / "state.db", clock=clock) as host:
        assert {name for name in host.files() if name.endswith(".raw")} == files
        left = {cls: set(host.stack.database.refs(cls)) for cls in ROWS}
        rows = ("VM", "VDI", "VBD", "VIF", "network")
        assert {cls: left[cls] - before[cls] for cls in rows} == {cls: set() for cls in rows}
