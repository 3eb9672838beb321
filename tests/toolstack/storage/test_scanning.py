"""What a look at a medium makes of the rows, how looks are shared, and which happen by themselves."""

from __future__ import annotations

import asyncio
import dataclasses
from functools import partial
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.host.storage.protocol import DiskInfo, Repository
from domzero.host.storage.sim import SimStorage
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.repositories import attached
from domzero.toolstack.storage.scanning import INTERVAL, interval, keep_scanning
from domzero.toolstack.storage.shared_work import SharedWork
from tests.toolstack.devices.test_vdi import default_sr, disk, disturb
from tests.toolstack.vm.world import DISK, DRIVE, MIB, World


class Told(SimStorage):
    """Storage that says of its disks what it is told to, and counts how often it is asked."""

    found: list[DiskInfo] | None = None
    asked = 0

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        self.asked += 1
        return await super().scan(repository) if self.found is None else self.found


@pytest.fixture
async def told(host: World) -> Told:
    storage = Told(host.clock, host.stack.settings.state_dir / "storage")
    await use(host.stack, storage, default_sr(host))
    return storage


async def use(stack: Stack, storage: SimStorage, sr: str) -> None:
    _, repository = attached(stack, sr)
    await storage.attach(repository)
    stack.storage = {**stack.storage, "file": storage}


def info(host: World, vdi: str, **fields: Any) -> DiskInfo:
    record = host.row("VDI", vdi)
    known = DiskInfo(record["uuid"], record["location"], record["virtual_size"], record["physical_utilisation"])
    return dataclasses.replace(known, **fields)


async def test_a_disk_that_grew_and_one_that_came_and_one_that_went(host: World, told: Told) -> None:
    kept, gone = await disk(host), await disk(host)
    await host.call("VDI.add_to_sm_config", kept, "mine", "stays")
    uuid = host.stack.database.new_uuid()
    new = DiskInfo(
        uuid, "elsewhere", MIB, 0, name="old\nname", sm_config={"image-format": "raw"}, xenstore_data={"scsi/0x12": "x"}
    )
    told.found = [info(host, kept, virtual_size=1 << 40, sm_config={"image-format": "vhd"}), new]
    await host.call("SR.scan", default_sr(host))
    assert (host.get("VDI", kept, "virtual_size"), host.get("VDI", gone, "missing")) == (1 << 40, True)
    assert host.get("VDI", kept, "sm_config") == {"mine": "stays", "image-format": "vhd"}
    row = host.row("VDI", host.stack.database.by_uuid("VDI", uuid))
    assert (row["name_label"], row["location"], row["sm_config"]) == ("old\nname", "elsewhere", new.sm_config)
    assert row["xenstore_data"] == {"scsi/0x12": "x"}
    assert "destroy" in row["allowed_operations"]
    assert set(host.get("VDI", gone, "allowed_operations")) == {"destroy", "forget", "update"}
    told.found = None
    await host.call("SR.scan", default_sr(host))
    assert not host.get("VDI", gone, "missing")
    assert "snapshot" in host.get("VDI", gone, "allowed_operations")


async def test_a_look_that_finds_nothing_new_makes_no_events(host: World) -> None:
    for _ in range(3):
        await disk(host)
    await host.call("SR.scan", default_sr(host))
    before = {ref: host.stack.database.row("VDI", ref).generation for ref in host.stack.database.refs("VDI")}
    await host.call("SR.scan", default_sr(host))
    after = {ref: host.stack.database.row("VDI", ref).generation for ref in host.stack.database.refs("VDI")}
    assert after == before


async def test_hardware_that_was_pulled_out_leaves_no_row(host: World, told: Told) -> None:
    """Unless a drive refers to it: the machine's owner shall see why it does not start."""
    host.change("SR", default_sr(host), type="file")
    unused, used = await disk(host), await disk(host)
    vm = await host.machine(disks=0)
    await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": used, "userdevice": "0"})
    host.stack.storage = {**host.stack.storage, "udev": told}
    host.change("SR", default_sr(host), type="udev")
    told.found = []
    await host.call("SR.scan", default_sr(host))
    assert host.stack.database.find("VDI", unused) is None
    assert host.get("VDI", used, "missing")


async def test_who_comes_while_one_goes_on_shares_the_next(host: World, told: Told) -> None:
    disturb(host, delay_scan="5")
    first = host.begin("SR.scan", default_sr(host))
    await host.settle()
    late = [host.begin("SR.scan", default_sr(host)) for _ in range(10)]
    await host.over(first, 6)
    await host.over(asyncio.gather(*late), 7)
    assert told.asked == 2


async def test_who_shares_a_failure_is_told(host: World) -> None:
    disturb(host, delay_scan="5", fail_scan="40 unreadable")
    calls = [asyncio.ensure_future(host.fails("SR.scan", default_sr(host))) for _ in range(3)]
    outcomes = await host.over(asyncio.gather(*calls), 12)
    assert outcomes == [("SR_BACKEND_FAILURE_40", "", "unreadable", "")] * 3


async def test_another_takes_over_when_the_one_in_front_is_cancelled() -> None:
    shared, ends = SharedWork(), asyncio.Event()
    done: list[str] = []

    async def work(name: str) -> None:
        await ends.wait()
        done.append(name)

    calls = {name: asyncio.ensure_future(shared.share("sr", partial(work, name))) for name in "abcd"}
    await asyncio.sleep(0)
    assert shared.is_running("sr")
    calls["b"].cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    ends.set()
    await asyncio.gather(calls["a"], calls["c"], calls["d"])
    assert done == ["a", "c"]
    assert not shared.is_running("sr")


async def test_what_one_is_told_all_are_told() -> None:
    shared = SharedWork()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ApiError("SR_NOT_ATTACHED", "sr")

    calls = [shared.share("sr", fail) for _ in range(3)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(each, ApiError) and each.code for each in outcomes] == ["SR_NOT_ATTACHED"] * 3


async def test_repositories_that_ask_for_it_are_looked_at(host: World, told: Told) -> None:
    keeper = asyncio.ensure_future(keep_scanning(host.stack))
    await host.clock.advance(3 * INTERVAL)
    assert told.asked == 0
    await host.call("SR.add_to_other_config", default_sr(host), "auto-scan", "true")
    await host.call("host.add_to_other_config", host.stack.host, "auto-scan-interval", "5")
    await host.clock.advance(INTERVAL)
    await host.settle()
    before = told.asked
    for _ in range(3):
        await host.clock.advance(5)
        await host.settle()
    assert told.asked == before + 3
    keeper.cancel()
    await asyncio.wait({keeper})


async def test_one_that_hangs_does_not_hold_up_the_others(host: World, told: Told) -> None:
    where = {"location": "/sim/slow", "sim:delay-scan": "1000"}
    made = host.call("SR.create", host.stack.host, where, "0", "slow", "", "file", "", False, {})
    slow = await host.over(made, 1100, step=100)
    for sr in (slow, default_sr(host)):
        await host.call("SR.add_to_other_config", sr, "auto-scan", "true")
    told.asked = 0
    keeper = asyncio.ensure_future(keep_scanning(host.stack))
    for _ in range(4):
        await host.clock.advance(INTERVAL)
        await host.settle()
    assert told.asked == 5, "the slow one is asked once, the other one each time"
    keeper.cancel()
    await asyncio.wait({keeper})


@pytest.mark.parametrize(
    ("config", "seconds"),
    [({}, 30), ({"auto-scan-interval": "60"}, 60), ({"auto-scan-interval": "0"}, 1), ({"auto-scan-interval": "x"}, 30),
     ({"auto-scan-interval": "nan"}, 30), ({"auto-scan-interval": "inf"}, 30)],
)  # fmt: skip
def test_intervals(config: dict[str, str], seconds: float) -> None:
    assert interval(config) == seconds


async def test_a_disk_of_that_format_is_asked_for(host: World) -> None:
    class Formats(SimStorage):
        async def create_disk(self, repository: Repository, uuid: str, virtual_size: int, sm_config: Any = None) -> Any:
            made = await super().create_disk(repository, uuid, virtual_size)
            return dataclasses.replace(made, sm_config={"image-format": sm_config["image-format"]})

    await use(host.stack, Formats(host.clock, host.stack.settings.state_dir / "storage"), default_sr(host))
    wanted = {"image-format": "vhd", "mine": "too"}
    vdi = await host.call("VDI.create", {**DISK, "SR": default_sr(host), "sm_config": wanted})
    assert host.get("VDI", vdi, "sm_config") == wanted
    assert host.get("VDI", await host.call("VDI.clone", vdi, {}), "sm_config")["mine"] == "too"
    assert host.get("VDI", await host.call("VDI.copy", vdi, default_sr(host)), "sm_config") == {}
