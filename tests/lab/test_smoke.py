"""The lab is what it says, and domzero runs there as a service, as its users install it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import XenAPI

from tests.house.sources import ROOT

pytestmark = pytest.mark.smoke

MODULES = ("dm_mod", "8021q", "bonding", "nfs", "nfsd", "iscsi_tcp", "openvswitch", "cifs")
UNIT = Path("/etc/systemd/system/domzero.service")


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.parametrize("module", MODULES)
def test_the_kernel_has_what_this_room_is_for(module: str) -> None:
    run("modprobe", module)
    assert Path("/sys/module", module.replace("-", "_")).is_dir()


def test_domzero_runs_as_a_service_and_outlives_its_own_restart() -> None:
    """The unit as it is packaged, with the command at the place where the package would put it."""
    shutil.copy(ROOT / "packaging/domzero.service", UNIT)
    command = Path("/usr/bin/domzero")
    command.unlink(missing_ok=True)
    command.write_text(f'#!/bin/sh\nexec {ROOT}/.venv/bin/domzero "$@"\n')
    command.chmod(0o755)
    Path("/etc/domzero").mkdir(exist_ok=True)
    Path("/etc/domzero/domzero.toml").write_text('https = "127.0.0.1:0"\n')
    run("systemctl", "daemon-reload")
    try:
        run("systemctl", "start", "domzero")
        before = host_name()
        run("systemctl", "restart", "domzero")
        assert host_name() == before
    except subprocess.CalledProcessError as error:
        pytest.fail(f"{error}: {run('journalctl', '--no-pager', '-u', 'domzero')}")
    finally:
        run("systemctl", "stop", "domzero")


def host_name() -> str:
    """As local programs of XenServer ask: by the classic socket, where root needs no password."""
    session = XenAPI.xapi_local()
    session.xenapi.login_with_password("root", "")
    try:
        (host,) = session.xenapi.host.get_all()
        return str(session.xenapi.host.get_hostname(host))
    finally:
        session.xenapi.session.logout()
        session("close")()
