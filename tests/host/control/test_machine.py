"""What the toolstack asks of the machine as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.host.control.hostname import set_hostname
from domzero.host.control.linux import LinuxControl
from domzero.host.control.neighbours import has_neighbour, parse_routes
from domzero.host.control.protocol import ControlError

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t000200C0\t00000000\t0001\t0\t0\t9\t00FFFFFF\t0\t0\t0
"""
"""As a machine of the usual byte order writes it."""


def test_routes_as_the_kernel_lists_them() -> None:
    assert parse_routes(ROUTES) == ("0.0.0.0/0", "192.0.2.0/24", "172.17.0.0/16")
    assert parse_routes("") == ()


async def test_nobody_has_an_empty_address(tmp_path: Path) -> None:
    assert await LinuxControl(tmp_path / "log").answers("", "lo") is False


async def test_no_neighbour_on_an_interface_that_is_not_there() -> None:
    assert await has_neighbour("192.0.2.1", "absent0") is False


def test_a_name_that_the_kernel_refuses_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "hostname"
    file.write_text("before\n")
    # Longer than HOST_NAME_MAX, so that this machine keeps its name whoever runs the test.
    with pytest.raises(ControlError, match="the kernel does not take the name"):
        set_hostname("a" * 65, file)
    assert file.read_text() == "before\n"
    assert [path.name for path in tmp_path.iterdir()] == ["hostname"]
    with pytest.raises(ControlError, match="cannot be written"):
        set_hostname("a" * 65, tmp_path / "absent" / "hostname")
