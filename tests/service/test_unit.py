"""The unit for systemd is well formed, and means the places, the exit codes and the patience that the code means."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from domzero import paths
from domzero.cli.main import parser
from domzero.daemon import STOP_GRACE
from tests.house.sources import ROOT

UNIT = ROOT / "packaging/domzero.service"


def sections() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=True, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment, method-assign]  # systemd's names keep their capitals
    parsed.read_string(UNIT.read_text())
    return parsed


def test_the_command_is_one_that_domzero_takes() -> None:
    program, *arguments = shlex.split(sections()["Service"]["ExecStart"])
    assert program == "/usr/bin/domzero"
    chosen = parser().parse_args(arguments)
    assert chosen.config == Path("/etc/domzero/domzero.toml")


def test_places_are_those_of_a_daemon_that_root_runs() -> None:
    service = sections()["Service"]
    state = paths.state_dir(root=True)
    assert Path("/var/lib", service["StateDirectory"]) == state
    assert Path("/run", service["RuntimeDirectory"]) == paths.runtime_dir(state, root=True)
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert int(service["StateDirectoryMode"], 8) == 0o700


def test_ends_and_restarts() -> None:
    service = sections()["Service"]
    assert (service["Type"], service["KillMode"], service["Restart"]) == ("notify", "process", "on-failure")
    assert service["RestartPreventExitStatus"] == "2"
    assert float(service["TimeoutStopSec"]) > STOP_GRACE + 10


def test_a_machine_that_the_kernel_kills_takes_no_other_with_it() -> None:
    """Machines are in the service's control group; systemd would stop a service of which any process was killed so."""
    service = sections()["Service"]
    assert (service["OOMPolicy"], service["TasksMax"]) == ("continue", "infinity")


def test_the_readme_beside_it_names_the_packages_that_bootstrap_installs() -> None:
    script = (ROOT / "script/bootstrap").read_text()
    (rows,) = re.findall(r"^program_rows\(\) \{\n(.*?)^\}", script, re.DOTALL | re.MULTILINE)
    packages = set(re.findall(r"^ +row (\S+)", rows, re.MULTILINE))
    assert "qemu-system-x86" in packages
    assert packages <= set(re.findall(r"[a-z0-9-]+", (ROOT / "packaging/README.md").read_text()))


def test_machines_keep_their_devices_and_their_rights() -> None:
    """Each of these closes /dev/kvm, /dev/net/tun or disks, or what a change of user and root directory needs."""
    service = sections()["Service"]
    closing = {
        "PrivateDevices",
        "ProtectClock",
        "DeviceAllow",
        "DevicePolicy",
        "MemoryDenyWriteExecute",
        "PrivateUsers",
    }
    assert closing & set(service) == set()
    needed = {
        "CAP_NET_ADMIN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_CHOWN",
        "CAP_KILL",
        "CAP_SYS_CHROOT",
        "CAP_NET_BIND_SERVICE",
    }
    assert needed <= set(service["CapabilityBoundingSet"].split())
    assert set(service["RestrictNamespaces"].split()) == {"cgroup", "ipc", "mnt", "net", "pid", "uts"}
    assert {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"} <= set(service["RestrictAddressFamilies"].split())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """With a program that exists here in the place of the installed one."""
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace("/usr/bin/domzero", sys.executable))
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(installed)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    about_it = [line for line in (ended.stdout + ended.stderr).splitlines() if UNIT.name in line]
    assert (ended.returncode, about_it) == (0, [])
