"""From other_config to what a boot fetches and tells."""

from __future__ import annotations

from typing import Any

import pytest

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.install.families import FAMILIES, Step
from domzero.toolstack.vm.install.plan import COMMAND_LINE_LIMIT, Plan, is_path_below, plan_of
from tests.toolstack.vm.install.repository import ASKED, PLACES

URL = "http://r.example/os"


def machine(loader: str = "eliloader", **config: str) -> dict[str, Any]:
    """A machine's row. Without a loader it has firmware; a word's underscores are hyphens."""
    hvm = not loader
    return {
        "other_config": {key.replace("_", "-"): value for key, value in config.items()},
        "PV_bootloader": loader,
        "PV_args": "",
        "domain_type": "hvm" if hvm else "pv",
        "HVM_boot_policy": "BIOS order" if hvm else "",
    }


def planned(record: dict[str, Any]) -> Plan:
    plan = plan_of("vm", record)
    assert plan is not None
    return plan


def refusal(record: dict[str, Any]) -> str:
    with pytest.raises(ApiError) as error:
        plan_of("vm", record)
    code, vm, why = error.value.description
    assert (code, vm) == ("BOOTLOADER_FAILED", "vm")
    return why


@pytest.mark.parametrize("layout", PLACES)
def test_where_each_family_keeps_its_installer(layout: str) -> None:
    record = machine(install_repository=URL)
    record["other_config"] |= ASKED[layout]
    plan = planned(record)
    assert PLACES[layout] in [(tree.kernel, tree.ramdisk) for tree in plan.trees]
    assert plan.fetches


DEBIAN = "mirror/country=manual mirror/protocol=http mirror/http/hostname=r.example mirror/http/directory=/os"


@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        (
            {"install_distro": "debianlike", "debian_release": "bookworm"},
            f"{DEBIAN} console=ttyS0 --- console=ttyS0",
        ),
        (
            {"install_distro": "debianlike", "debian_release": "bookworm", "install_args": "auto=true --- quiet"},
            f"{DEBIAN} console=ttyS0 auto=true --- quiet console=ttyS0",
        ),
        (
            {"install_distro": "debianlike", "debian_release": "wheezy", "install_args": "auto=true -- quiet"},
            f"{DEBIAN} console=ttyS0 auto=true -- quiet console=ttyS0",
        ),
        (
            {"install_distro": "debianlike", "debian_release": "bookworm", "install_args": "--- console=tty0"},
            f"{DEBIAN} console=ttyS0 --- console=tty0",
        ),
        (
            {"install_distro": "debianlike", "debian_release": "bookworm", "install_vnc": "true"},
            f"{DEBIAN} console=tty0",
        ),
        ({"install_distro": "rhlike"}, f"method={URL} inst.repo={URL} text inst.text console=ttyS0"),
        (
            {"install_distro": "rhlike", "install_repository": "nfs:r.example:/os"},
            "method=nfs:r.example:/os inst.repo=nfs:r.example:/os text inst.text console=ttyS0",
        ),
        ({"install_distro": "rhel41"}, f"method={URL} text console=ttyS0"),
        ({"install_distro": "sleslike"}, f"install={URL} textmode=1 console=ttyS0"),
        (
            {"install_distro": "sleslike", "install_repository": "nfs://r.example/os/"},
            "install=nfs://r.example/os textmode=1 console=ttyS0",
        ),
        ({"install_distro": "sleslike", "install_vnc": "true"}, f"install={URL} console=tty0"),
        (
            {"install_distro": "rhlike", "install_vnc": "true", "install_vncpasswd": "secret"},
            f"method={URL} inst.repo={URL} inst.graphical console=tty0",
        ),
        (
            {"install_distro": "sleslike", "install_args": "autoyast=http://a/x"},
            f"install={URL} textmode=1 console=ttyS0 autoyast=http://a/x",
        ),
        (
            {"install_distro": "sleslike", "install_repository": "http://user:word@r.example:8080/os"},
            "install=http://r.example:8080/os textmode=1 console=ttyS0",
        ),
    ],
)
def test_what_an_installer_is_told(config: dict[str, str], arguments: str) -> None:
    assert planned(machine(**{"install_repository": URL, **config})).arguments == arguments


def test_the_machines_own_arguments_come_last() -> None:
    record = machine(install_repository=URL, install_distro="sleslike", install_args="a=b")
    plan = planned({**record, "PV_args": "quiet"})
    assert plan.arguments.endswith(" a=b quiet")


@pytest.mark.parametrize("distro", FAMILIES)
def test_pygrub_takes_over_after_the_last_round(distro: str) -> None:
    record = machine(install_repository=URL, install_distro=distro, debian_release="etch")
    steps = []
    while (plan := plan_of("vm", record)) is not None and record["PV_bootloader"] == "eliloader":
        steps.append(plan.step)
        record |= plan.after(record)
    two = distro in ("rhel41", "rhel44", "sleslike")
    assert steps == ([Step.INSTALLER, Step.DISK] if two else [Step.INSTALLER])
    assert (record["PV_bootloader"], record["other_config"]["install-round"]) == ("pygrub", "3" if two else "2")
    assert plan_of("vm", record) is None


def test_a_disc_of_a_known_family_is_looked_at() -> None:
    plan = planned(machine(install_repository="cdrom", install_distro="sleslike", install_args="netsetup=dhcp"))
    assert (plan.looks_at_disc, plan.fetches, plan.insists) == (True, False, True)
    assert plan.arguments == "install=cd:/ textmode=1 console=ttyS0 netsetup=dhcp"
    plan = planned(machine(install_repository="cdrom", install_distro="debianlike"))
    assert [tree.kernel for tree in plan.trees][:1] == ["install.amd/vmlinuz"]
    assert (plan.looks_at_disc, plan.insists) == (True, False)


def test_a_disc_in_the_drive_is_one_round_of_firmware() -> None:
    for config in ({}, {"install_repository": "cdrom"}, {"install_repository": "cdrom", "install_distro": "other"}):
        record = machine(**config)
        plan = planned(record)
        assert not plan.fetches
        assert plan.after(record) == {
            "PV_bootloader": "pygrub",
            "other_config": {**record["other_config"], "install-round": "2"},
        }


@pytest.mark.parametrize(
    "record",
    [
        machine(""),
        machine("", install_repository="cdrom"),
        machine("", install_repository="file:///etc"),
        machine("", install_repository=URL, install_distro="rhlike", install_round="2"),
        machine("pygrub", install_repository=URL, install_distro="rhlike"),
    ],
)
def test_machines_that_are_not_being_installed(record: dict[str, Any]) -> None:
    assert plan_of("vm", record) is None


def test_machines_with_firmware_are_installed_from_the_network_and_keep_their_firmware() -> None:
    record = machine("", install_repository=URL, install_distro="rhlike")
    assert planned(record).after(record).keys() == {"other_config"}


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"install_distro": "windowslike"}, "install-distro"),
        ({"install_distro": "debianlike", "debian_release": "../.."}, "debian-release"),
        ({"install_distro": "debianlike"}, "debian-release"),
        ({"install_distro": "sleslike", "install_arch": "vax"}, "install-arch"),
        ({"install_distro": "rhlike", "install_round": "0"}, "install-round"),
        ({"install_distro": "rhlike", "install_round": "two"}, "install-round"),
        ({"install_distro": "rhlike", "install_kernel": "../vmlinuz"}, "install-kernel"),
        ({"install_distro": "rhlike", "install_ramdisk": "http://x/y"}, "install-ramdisk"),
        ({"install_distro": "rhlike", "install_args": "x" * COMMAND_LINE_LIMIT}, "2047"),
        ({"install_distro": "rhlike", "install_args": "a\nb"}, "one line"),
        ({"install_distro": "rhlike", "install_repository": "file:///etc"}, "install-repository"),
        ({"install_distro": "rhlike", "install_repository": "http://h/a b"}, "install-repository"),
        ({"install_distro": "rhlike", "install_repository": "http://h:99999/"}, "install-repository"),
        ({"install_distro": "rhlike", "install_repository": "nfs:server"}, "install-repository"),
        ({"install_distro": "rhlike", "install_repository": "nfs:a:/x/../y"}, "install-repository"),
    ],
)
def test_what_cannot_be_installed(config: dict[str, str], word: str) -> None:
    assert word in refusal(machine(**{"install_repository": URL, **config}))


def test_own_places_of_kernel_and_ramdisk() -> None:
    asked = {"install_repository": URL, "install_distro": "rhlike", "install_kernel": "a/k"}
    plan = planned(machine(**asked))
    assert [(tree.kernel, tree.ramdisk) for tree in plan.trees] == [("a/k", "images/pxeboot/initrd.img")]
    plan = planned(machine(**asked, install_ramdisk="a/r"))
    assert [(tree.kernel, tree.ramdisk, tree.listing) for tree in plan.trees] == [("a/k", "a/r", "")]


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/../b", ".", "a b", "a?b", "a%2e", "a\\b", "ä"])
def test_paths_that_lead_elsewhere(path: str) -> None:
    assert not is_path_below(path)
