"""How much of the host's disks a drive may have: read, checked, and obeyed at once."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.host.hypervisor.spec import DiskLimits, IoClass
from domzero.idl.types import Ref
from domzero.toolstack.storage.disk_limits import limits_at_start, limits_of
from tests.toolstack.devices.test_vdi import disk, running_with_disk
from tests.toolstack.vm.world import DRIVE, World


@pytest.mark.parametrize(
    ("algorithm", "parameters", "limits"),
    [
        ("", {"sched": "nonsense"}, None),
        ("ionice", {}, DiskLimits(io_class=IoClass.BEST_EFFORT, priority=4)),
        ("ionice", {"sched": "rt", "class": "0"}, DiskLimits(io_class=IoClass.REAL_TIME, priority=0)),
        ("ionice", {"sched": "idle", "class": "lowest"}, DiskLimits(io_class=IoClass.IDLE, priority=7)),
        ("ionice", {"bps": "no number, but not ionice's"}, DiskLimits(io_class=IoClass.BEST_EFFORT)),
        ("ratelimit", {}, None),
        ("ratelimit", {"bps": "0", "iops": "0"}, None),
        ("ratelimit", {"bps": "1000000"}, DiskLimits(bytes_per_second=1000000)),
        ("ratelimit", {"bps": "1", "iops": "200"}, DiskLimits(bytes_per_second=1, operations_per_second=200)),
    ],
)
def test_what_the_fields_say(algorithm: str, parameters: dict[str, str], limits: DiskLimits | None) -> None:
    assert limits_of(algorithm, parameters) == limits


@pytest.mark.parametrize(
    ("algorithm", "parameters", "field", "value"),
    [
        ("cfq", {}, "qos_algorithm_type", "cfq"),
        ("ionice", {"sched": "fast"}, "qos_algorithm_params:sched", "fast"),
        ("ionice", {"class": "8"}, "qos_algorithm_params:class", "8"),
        ("ionice", {"class": "-1"}, "qos_algorithm_params:class", "-1"),
        ("ratelimit", {"bps": "1e6"}, "qos_algorithm_params:bps", "1e6"),
        ("ratelimit", {"iops": "٣"}, "qos_algorithm_params:iops", "٣"),
        ("ratelimit", {"bps": "9" * 30}, "qos_algorithm_params:bps", "9" * 30),
    ],
)
def test_what_makes_no_sense(algorithm: str, parameters: dict[str, str], field: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        limits_of(algorithm, parameters)
    assert caught.value.description == ("INVALID_VALUE", field, value)
    assert limits_at_start({"qos_algorithm_type": algorithm, "qos_algorithm_params": parameters}) is None


def limits_in(host: World, vm: Ref, slot: int = 0) -> DiskLimits | None:
    """What the hypervisor holds the drive to."""
    return host.hypervisor._domains[host.get("VM", vm, "domid")].disks[slot].spec.limits


async def test_a_running_machine_is_limited_at_once(host: World) -> None:
    vm, vbd, _ = await running_with_disk(host)
    assert limits_in(host, vm) is None
    assert host.get("VBD", vbd, "qos_supported_algorithms") == ("ionice", "ratelimit")
    await host.call("VBD.set_qos_algorithm_type", vbd, "ratelimit")
    await host.call("VBD.add_to_qos_algorithm_params", vbd, "bps", "5000")
    assert limits_in(host, vm) == DiskLimits(bytes_per_second=5000)
    await host.call("VBD.set_qos_algorithm_params", vbd, {"iops": "7"})
    assert limits_in(host, vm) == DiskLimits(operations_per_second=7)
    await host.call("VBD.remove_from_qos_algorithm_params", vbd, "iops")
    assert limits_in(host, vm) is None
    await host.call("VBD.set_qos_algorithm_type", vbd, "ionice")
    await host.call("VBD.set_qos_algorithm_type", vbd, "")
    assert limits_in(host, vm) is None


async def test_a_machine_starts_with_its_limits_and_a_drive_is_plugged_with_them(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    (vbd,) = host.get("VM", vm, "VBDs")
    await host.call("VBD.set_qos_algorithm_params", vbd, {"sched": "rt", "class": "high"})
    await host.call("VBD.set_qos_algorithm_type", vbd, "ionice")
    await host.call("VM.start", vm, False, False)
    assert limits_in(host, vm) == DiskLimits(io_class=IoClass.REAL_TIME, priority=2)
    rate: dict[str, Any] = {"qos_algorithm_type": "ratelimit", "qos_algorithm_params": {"iops": "9"}}
    second = await host.call("VBD.create", {**DRIVE, "VM": vm, "VDI": await disk(host), "userdevice": "1", **rate})
    await host.call("VBD.plug", second)
    assert limits_in(host, vm, 1) == DiskLimits(operations_per_second=9)
    assert set(host.get("VBD", second, "qos_supported_algorithms")) == {"ionice", "ratelimit"}


async def test_what_is_refused_is_not_recorded(host: World) -> None:
    vm = await host.machine(disks=1, cards=0, other_config={"sim:fail-limit-disk": "no such group"})
    await host.call("VM.start", vm, False, False)
    (vbd,) = host.get("VM", vm, "VBDs")
    await host.call("VBD.set_qos_algorithm_params", vbd, {"bps": "1000"})
    assert await host.fails("VBD.set_qos_algorithm_type", vbd, "ratelimit") == ("INTERNAL_ERROR", "no such group")
    assert host.get("VBD", vbd, "qos_algorithm_type") == ""
    assert await host.fails("VBD.set_qos_algorithm_type", vbd, "x") == ("INVALID_VALUE", "qos_algorithm_type", "x")
    duplicate = await host.fails("VBD.add_to_qos_algorithm_params", vbd, "bps", "1")
    assert duplicate == ("MAP_DUPLICATE_KEY", "VBD", "qos_algorithm_params", vbd, "bps")
    fields = {**DRIVE, "VM": vm, "VDI": await disk(host), "userdevice": "1", "qos_algorithm_type": "x"}
    assert await host.fails("VBD.create", fields) == ("INVALID_VALUE", "qos_algorithm_type", "x")
