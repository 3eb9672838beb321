"""What a DHCP server answers, whoever it is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.network.addresses import DEFAULT
from domzero.host.network.dhcp_client import LeaseSettings
from domzero.host.network.lease import ROUTES, lease_of
from domzero.host.network.protocol import NetworkError

SETTINGS = LeaseSettings("xapi0", True, True, "", "", "eth0")


def test_a_lease() -> None:
    found = lease_of({"ip": "192.0.2.9", "mask": "24", "router": "192.0.2.1", "dns": "192.0.2.2 x"}, SETTINGS)
    assert found.addressing.addresses == ("192.0.2.9/24",)
    assert [route.destination for route in found.addressing.routes] == [DEFAULT]
    assert found.servers == ("192.0.2.2",)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "0.0.0.0", "224.0.0.1", "::1", "192.0.2.9/24", "192.0.2.٩"])
def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises(NetworkError):
        lease_of({"ip": address}, SETTINGS)


NAMES = st.sampled_from(["ip", "mask", "subnet", "router", "dns", "domain", "staticroutes", "odd"])
WORDS = st.lists(
    st.sampled_from(
        ["192.0.2.9", "198.51.100.0/24", "0.0.0.0/0", "0.0.0.0", "255.255.255.0", "24", "-1", "33", "0", "x", "::1"]
    ),
    max_size=2 * ROUTES,
).map(" ".join)


@given(st.dictionaries(NAMES, st.one_of(st.text(max_size=12), WORDS)), st.booleans())
def test_whatever_a_server_says(environment: dict[str, str], addressed: bool) -> None:
    try:
        found = lease_of({**environment, **({"ip": "192.0.2.9"} if addressed else {})}, SETTINGS)
    except NetworkError:
        return
    assert str(IPv4Interface(found.addressing.addresses[0])) in found.addressing.addresses
    assert len(found.addressing.routes) <= ROUTES
    for route in found.addressing.routes:
        assert route.destination == DEFAULT or str(IPv4Network(route.destination)) == route.destination
        assert route.gateway in ("", str(IPv4Address(route.gateway or 0)))
    assert [str(IPv4Address(server)) for server in found.servers] == list(found.servers)
