"""Which interfaces may be configured, and by which backend machines reach networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from domzero.hands import HandsError, make_network, managed_interfaces
from domzero.settings import SettingsError
from tests.settings.test_settings import settings


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), frozenset()),
        (("--manage-interfaces", ""), frozenset()),
        (("--manage-interfaces", "eth0, enp3s0"), frozenset({"eth0", "enp3s0"})),
        (("--manage-interfaces", "all"), None),
        (("--hypervisor", "sim"), None),
        (("--hypervisor", "sim", "--manage-interfaces", "eth1"), frozenset({"eth1"})),
        (("--hypervisor", "sim", "--manage-interfaces", ""), frozenset()),
    ],
)
def test_interfaces_that_may_be_configured(arguments: tuple[str, ...], names: frozenset[str] | None) -> None:
    assert managed_interfaces(settings(*arguments)) == names


@pytest.mark.parametrize(
    "arguments",
    [
        ("--manage-interfaces", "eth0/1"),
        ("--manage-interfaces", "a\nb"),
        ("--manage-interfaces", "x" * 16),
        ("--network", "token-ring"),
        ("--management-probation", "0"),
    ],
)
def test_what_cannot_be_understood(arguments: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match=arguments[0]):
        settings(*arguments)


@pytest.mark.parametrize(
    ("name", "root", "mode"),
    [
        ("auto", True, "bridge"),
        ("auto", False, "user"),
        ("bridge", True, "bridge"),
        ("user", True, "user"),
        ("openvswitch", True, "openvswitch"),
    ],
)
def test_backends(tmp_path: Path, name: str, root: bool, mode: str) -> None:
    assert make_network(settings("--network", name), tmp_path, root=root).mode() == mode


@pytest.mark.parametrize("name", ["bridge", "openvswitch"])
def test_backends_that_take_rights(tmp_path: Path, name: str) -> None:
    with pytest.raises(HandsError, match=f"network = {name} takes root's rights"):
        make_network(settings("--network", name), tmp_path, root=False)
