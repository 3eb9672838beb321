"""The pool's own templates."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from domzero.toolstack.stack import StackSettings
from domzero.toolstack.vm import template_rows, templates
from domzero.toolstack.vm.disk_plan import parse_disk_plan
from domzero.toolstack.vm.memory_constraints import check_limits, check_vcpus, limits_of
from domzero.toolstack.vm.template_rows import TEMPLATES, TINY_LINUX
from domzero.toolstack.vm.templates import REVISION, ensure_templates, offered, template_fields
from tests.toolstack.vm.world import World, world

WITH_KERNEL = StackSettings(Path("/state"), "1.0", guest_kernel=Path("/k"), guest_ramdisk=Path("/r"))
WITHOUT = StackSettings(Path("/state"), "1.0")


def test_keys_and_names_are_unique() -> None:
    assert len({row.key for row in TEMPLATES}) == len({row.name for row in TEMPLATES}) == len(TEMPLATES)
    assert {"Tiny Linux", "Debian 12", "Other install media"} <= {row.name for row in TEMPLATES}


@pytest.mark.parametrize("row", TEMPLATES, ids=lambda row: str(row.key))
def test_rows_make_sound_templates(row: template_rows.TemplateRow) -> None:
    fields = template_fields(row, WITH_KERNEL)
    limits = check_limits(limits_of(fields))
    check_vcpus(fields["VCPUs_at_startup"], fields["VCPUs_max"])
    assert limits.static_max <= row.memory_max
    assert row.vcpus <= row.vcpus_max
    plan = parse_disk_plan(fields["other_config"].get("disks", "<provision/>"))
    assert [disk.size for disk in plan] == list(row.disks)
    assert [disk.bootable for disk in plan] == [position == 0 for position in range(len(plan))]
    restrictions = ET.fromstring(fields["recommendations"]).findall("restriction")
    about = {item.get("field") or item.get("property"): item.get("max") for item in restrictions}
    assert about["memory-static-max"] == str(row.memory_max)
    assert {"vcpus-max", "number-of-vbds", "number-of-vifs"} <= set(about)


def test_tiny_linux_needs_a_kernel() -> None:
    assert TINY_LINUX not in list(offered(WITHOUT))
    assert TINY_LINUX in list(offered(WITH_KERNEL))
    fields = template_fields(TINY_LINUX, WITH_KERNEL)
    assert (fields["PV_kernel"], fields["PV_ramdisk"]) == ("/k", "/r")
    assert fields["PV_args"].startswith("console=ttyS0")


async def test_every_pool_has_them(host: World) -> None:
    for row in TEMPLATES:
        (ref,) = await host.call("VM.get_by_name_label", row.name)
        record = host.row("VM", ref)
        assert (record["is_a_template"], record["is_default_template"]) == (True, True)
        assert record["other_config"]["default_template"] == "true"
        assert "mac_seed" in record["other_config"]
        assert {"clone", "copy"} <= set(record["allowed_operations"])
        assert {"start", "destroy"}.isdisjoint(record["allowed_operations"])


async def test_what_clients_changed_outlives_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path, database=tmp_path / "db") as host:
        (ref,) = await host.call("VM.get_by_name_label", "Debian 12")
        await host.call("VM.set_name_description", ref, "ours")
        await host.call("VM.add_to_other_config", ref, "HideFromXenCenter", "true")
        before = host.row("VM", ref)
    async with world(tmp_path, database=tmp_path / "db") as host:
        assert host.row("VM", ref) == before
        assert len(await host.call("VM.get_by_name_label", "Debian 12")) == 1


async def test_a_changed_row_is_taken_over(host: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = await host.call("VM.get_by_name_label", "Tiny Linux")
    await host.call("VM.add_to_other_config", ref, "ours", "yes")
    seed = host.get("VM", ref, "other_config")["mac_seed"]
    bigger = dataclasses.replace(TINY_LINUX, name="Tinier Linux", memory=TINY_LINUX.memory * 2)
    monkeypatch.setattr(templates, "TEMPLATES", (bigger, *TEMPLATES[1:]))
    ensure_templates(host.stack)
    record = host.row("VM", ref)
    assert (record["name_label"], record["memory_static_max"]) == ("Tinier Linux", bigger.memory)
    assert (record["other_config"]["ours"], record["other_config"]["mac_seed"]) == ("yes", seed)
    assert record["other_config"][REVISION] == template_fields(bigger, host.stack.settings)["other_config"][REVISION]


async def test_retired_templates_go_unless_somebody_uses_them(host: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (used,) = await host.call("VM.get_by_name_label", "Debian 12")
    (unused,) = await host.call("VM.get_by_name_label", "Debian 13")
    network = host.stack.database.refs("network")[0]
    await host.call("VIF.create", {
        "device": "0", "network": network, "VM": used, "MAC": "", "MTU": 1500, "other_config": {},
        "qos_algorithm_type": "", "qos_algorithm_params": {},
    })  # fmt: skip
    metrics = len(host.stack.database.refs("VM_metrics"))
    left = tuple(row for row in TEMPLATES if not row.key.startswith("debian-1"))
    monkeypatch.setattr(templates, "TEMPLATES", left)
    ensure_templates(host.stack)
    assert host.stack.database.find("VM", unused) is None
    assert host.get("VM", used, "is_default_template") is False
    assert "default_template" not in host.get("VM", used, "other_config")
    assert metrics - len(host.stack.database.refs("VM_metrics")) == 2
