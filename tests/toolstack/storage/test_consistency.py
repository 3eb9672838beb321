"""Whatever clients do at the same time, and whatever fails: rows and medium agree afterwards, and rows and rules."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.idl.types import NULL_REF, Ref
from tests.toolstack.devices.test_vdi import default_sr
from tests.toolstack.vm.world import DISK, DRIVE, MIB, World

CLIENTS = 6
CALLS = 40
FAILING = 0.05
"""The part of all steps that fail."""
FAILURE = ("INTERNAL_ERROR", "this step fails")


class Client:
    """Calls at random; refusals are as good as successes, errors of ours are not."""

    def __init__(self, host: World, seed: int) -> None:
        self.host = host
        self.random = random.Random(seed)
        self.succeeded = 0
        self.unexpected: list[ApiError] = []

    async def run(self) -> None:
        for _ in range(CALLS):
            work = self.random.choice(self.choices())
            try:
                await work()
                self.succeeded += 1
            except ApiError as error:
                if error.code == "INTERNAL_ERROR" and error.description != FAILURE:
                    self.unexpected.append(error)
            await asyncio.sleep(0)

    def any(self, cls: str, **fields: Any) -> Ref:
        """Some object, one that has these values where there is one."""
        rows = self.host.stack.database.rows(cls)
        fitting = [ref for ref, row in rows.items() if all(row.record[name] == value for name, value in fields.items())]
        return self.random.choice(fitting or sorted(rows) or [NULL_REF])

    def choices(self) -> list[Callable[[], Awaitable[Any]]]:
        call, sr = self.host.call, default_sr(self.host)
        return [
            lambda: call("VDI.create", {**DISK, "SR": sr, "sharable": self.random.random() < 0.2}),
            lambda: call("VDI.clone", self.any("VDI"), {}),
            lambda: call("VDI.snapshot", self.any("VDI"), {}),
            lambda: call("VDI.copy", self.any("VDI"), sr),
            lambda: call("VDI.resize", self.any("VDI"), str(self.random.randrange(8, 32) * MIB)),
            lambda: call("VDI.resize_online", self.any("VDI"), str(self.random.randrange(8, 32) * MIB)),
            lambda: call("VDI.destroy", self.any("VDI")),
            lambda: call("VDI.destroy", self.any("VDI", is_a_snapshot=True)),
            lambda: call("VDI.set_read_only", self.any("VDI"), self.random.random() < 0.3),
            lambda: call("SR.scan", sr),
            self.make_drive,
            lambda: call("VBD.destroy", self.any("VBD", currently_attached=False)),
            lambda: call("VBD.plug", self.any("VBD", currently_attached=False)),
            lambda: call("VBD.unplug", self.any("VBD", currently_attached=True)),
            lambda: call("VBD.set_qos_algorithm_type", self.any("VBD"), self.random.choice(["", "ionice"])),
            lambda: call("VM.start", self.machine("Halted"), False, False),
            lambda: call("VM.hard_shutdown", self.machine("Running")),
            lambda: call("VM.snapshot", self.machine("Running"), "s", []),
            lambda: call("PBD.unplug", self.host.get("SR", sr, "PBDs")[0]),
            lambda: call("PBD.plug", self.host.get("SR", sr, "PBDs")[0]),
        ]

    def machine(self, state: str) -> Ref:
        return self.any("VM", is_control_domain=False, is_a_template=False, is_a_snapshot=False, power_state=state)

    async def make_drive(self) -> Ref:
        fields = {"userdevice": "autodetect", "mode": self.random.choice(["RO", "RW"])}
        machine = self.machine(self.random.choice(["Halted", "Running"]))
        return str(await self.host.call("VBD.create", {**DRIVE, **fields, "VM": machine, "VDI": self.any("VDI")}))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_rows_medium_and_rules_agree(host: World, seed: int) -> None:
    chance = random.Random(seed)
    sr = default_sr(host)
    for _ in range(3):
        await host.machine(disks=1, cards=0)

    def fail_sometimes(_: str) -> None:
        if chance.random() < FAILING:
            raise ApiError(*FAILURE)

    token = before_step.set(fail_sometimes)
    try:
        clients = [Client(host, seed * 100 + number) for number in range(CLIENTS)]
        await host.over(asyncio.gather(*(client.run() for client in clients)), 20_000, step=5)
    finally:
        before_step.reset(token)
    await host.settle()
    assert [error for client in clients for error in client.unexpected] == []
    # How many depends on who comes first: a repository that is unplugged early refuses most of what follows.
    assert sum(client.succeeded for client in clients) > CLIENTS * CALLS / 10
    await host.call("PBD.plug", host.get("SR", sr, "PBDs")[0])
    assert_sound(host, sr)
    await host.call("SR.scan", sr)
    assert_sound(host, sr)


def assert_sound(host: World, sr: Ref) -> None:
    rows = {
        cls: {ref: row.record for ref, row in host.stack.database.rows(cls).items()} for cls in ("VDI", "VBD", "VM")
    }
    disks = {ref: record for ref, record in rows["VDI"].items() if record["SR"] == sr}
    assert host.files() == {f"{record['location']}.raw" for record in disks.values()}
    assert not any(record["missing"] for record in disks.values())
    assert host.get("SR", sr, "virtual_allocation") == sum(record["virtual_size"] for record in disks.values())
    running = {record["domid"] for record in rows["VM"].values() if record["power_state"] == "Running"} - {0}
    assert host.domids() == running
    for vm in rows["VM"].values():
        if vm["domid"] > 0:
            slots = {
                int(rows["VBD"][vbd]["userdevice"]) for vbd in vm["VBDs"] if rows["VBD"][vbd]["currently_attached"]
            }
            assert slots == set(host.hypervisor._domains[vm["domid"]].disks)
    for vdi, record in disks.items():
        drives = [rows["VBD"][vbd] for vbd in record["VBDs"] if rows["VBD"][vbd]["currently_attached"]]
        writers = [drive for drive in drives if drive["mode"] == "RW"]
        assert record["sharable"] or not writers or len(drives) == 1, vdi
    for cls in ("VDI", "VBD", "SR", "VM"):
        for ref, row in host.stack.database.rows(cls).items():
            assert row.record["current_operations"] == {}
            assert row.record["allowed_operations"] == host.stack.gates[cls].allowed(ref), (cls, ref)
