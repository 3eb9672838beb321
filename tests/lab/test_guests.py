"""A guest inside the lab's guest: a machine of domzero on repositories and networks that only this kernel can give."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.api.guest import Guest, make_machine, remove_machine
from tests.api.harness import InProcessHost, in_process, login

PATIENCE = 600.0
"""Seconds: an emulated processor emulates another."""

CABLE = ("dzlab0", "dzlab1")
ELSEWHERE = "dzlab"


def run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def cable() -> Iterator[str]:
    """Something like an interface of the host: its far end is in another namespace."""
    near, far = CABLE
    run("ip", "netns", "add", ELSEWHERE)
    run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", ELSEWHERE)
    run("ip", "link", "set", near, "up")
    run("ip", "-netns", ELSEWHERE, "link", "set", far, "up")
    yield near
    run("ip", "netns", "delete", ELSEWHERE)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, cable: str) -> Iterator[InProcessHost]:
    with in_process(
        tmp_path_factory.mktemp("host"), hypervisor="qemu", accel="tcg", network="bridge", manage_interfaces=cable
    ) as host:
        yield host


@pytest.fixture(scope="module")
def api(host: InProcessHost) -> Any:
    return login(host.url).xenapi


@pytest.fixture(scope="module")
def nfs(api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("export") / "vm"
    directory.mkdir()
    run("systemctl", "start", "nfs-server")
    run("exportfs", "-o", "rw,no_root_squash,no_subtree_check,insecure,fsid=78", f"127.0.0.1:{directory}")
    config = {"server": "127.0.0.1", "serverpath": str(directory)}
    sr = api.SR.create(api.host.get_all()[0], config, "0", "NFS", "", "nfs", "user", True, {})
    yield sr
    for vdi in api.SR.get_VDIs(sr):
        api.VDI.destroy(vdi)
    for pbd in api.SR.get_PBDs(sr):
        api.PBD.unplug(pbd)
    api.SR.destroy(sr)
    run("exportfs", "-u", f"127.0.0.1:{directory}")


@pytest.fixture(scope="module")
def lvm(api: Any) -> Iterator[str]:
    config = {"device": os.environ["DOMZERO_LAB_DISK"], "force": "true"}
    sr = api.SR.create(api.host.get_all()[0], config, "0", "LVM", "", "lvm", "user", False, {})
    yield sr
    for vdi in api.SR.get_VDIs(sr):
        api.VDI.destroy(vdi)
    for pbd in api.SR.get_PBDs(sr):
        api.PBD.unplug(pbd)
    api.SR.destroy(sr)


@pytest.mark.parametrize("kind", ["nfs", "lvm"])
def test_a_guest_boots_from_it_and_grows_its_disk(
    kind: str, host: InProcessHost, api: Any, request: pytest.FixtureRequest
) -> None:
    """Its disk is there again after a reboot, and in its new size."""
    sr = request.getfixturevalue(kind)
    guest = on_repository(make_machine(host, api, kind), sr)
    api.VM.start(guest.vm, False, False)
    guest.wait_until_up()
    assert guest.boots() == 1
    disk = next(api.VBD.get_VDI(vbd) for vbd in api.VM.get_VBDs(guest.vm) if api.VBD.get_type(vbd) == "Disk")
    size = int(api.VDI.get_virtual_size(disk))
    api.VDI.resize_online(disk, str(size + (16 << 20)))
    api.VM.hard_reboot(guest.vm)
    guest.wait_until_up()
    assert guest.boots() == 2
    assert int(api.VDI.get_virtual_size(disk)) >= size + (16 << 20)
    remove_machine(api, guest.vm)


def test_a_card_is_on_a_vlan_of_the_kernel(host: InProcessHost, api: Any, cable: str) -> None:
    """VLAN, bridge and card as the kernel shows them, and all gone in the end."""
    (pif,) = [ref for ref, record in api.PIF.get_all_records().items() if record["device"] == cable]
    network = api.network.create({"name_label": "tagged", "name_description": "", "other_config": {}})
    vlan = api.VLAN.create(pif, "42", network)
    api.PIF.plug(api.VLAN.get_untagged_PIF(vlan))
    bridge = api.network.get_bridge(network)
    assert "id 42" in run("ip", "-details", "link", "show", f"{cable}.42")
    guest = make_machine(host, api, "on a VLAN")
    card = {"VM": guest.vm, "network": network, "device": "0", "MAC": "", "MTU": "1500", "other_config": {}}
    api.VIF.create({**card, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    api.VM.start(guest.vm, True, False)
    ports = run("ip", "-oneline", "link", "show", "master", bridge)
    assert f"{cable}.42" in ports
    assert f"vif{api.VM.get_domid(guest.vm)}.0" in ports
    remove_machine(api, guest.vm)
    api.VLAN.destroy(vlan)
    assert subprocess.run(["ip", "link", "show", f"{cable}.42"], capture_output=True).returncode != 0
    api.network.destroy(network)


def on_repository(guest: Guest, sr: str) -> Guest:
    """The same machine with its disk there instead of where the template puts it."""
    api = guest.api
    name = api.VM.get_name_label(guest.vm)
    moved = api.VM.copy(guest.vm, f"{name} moved", sr)
    remove_machine(api, guest.vm)
    return replace(guest, vm=moved, patience=PATIENCE)
