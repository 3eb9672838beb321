"""IP settings as clients give them, checked. Pure; everything raised names the parameter that is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address

from domzero.engine.errors import ApiError


def bad_address(parameter: str) -> ApiError:
    """What is raised for a text that is no address that could be meant there."""
    return ApiError("INVALID_IP_ADDRESS_SPECIFIED", parameter)


def static_ipv4(address: str, netmask: str, gateway: str, dns: str) -> dict[str, str]:
    """The PIF fields of a static IPv4 configuration, in their usual form.

    Raises INVALID_IP_ADDRESS_SPECIFIED: for an address that no host can have, a netmask with holes, a gateway that is
    not a neighbour, a name server that is no address.
    """
    own = _ipv4(address, "IP")
    try:
        interface = IPv4Interface(f"{own}/{_ipv4(netmask, 'netmask')}")
    except ValueError:
        raise bad_address("netmask") from None
    # A hostmask (0.0.0.255) reads as its inverse; /0 is no subnet.
    if str(interface.netmask) != str(_ipv4(netmask, "netmask")) or interface.network.prefixlen == 0:
        raise bad_address("netmask")
    if not _fits_host(own) or (interface.network.prefixlen < 31 and _is_edge(interface)):
        raise bad_address("IP")
    way = _ipv4(gateway, "gateway") if gateway else None
    if way is not None and (way == own or way not in interface.network):
        raise bad_address("gateway")
    return {
        "IP": str(own),
        "netmask": str(interface.netmask),
        "gateway": "" if way is None else str(way),
        "DNS": name_servers(dns),
    }


def static_ipv6(address: str, gateway: str) -> dict[str, object]:
    """The PIF fields of a static IPv6 configuration. Raises INVALID_CIDR_ADDRESS_SPECIFIED for an address without
    prefix length, INVALID_IP_ADDRESS_SPECIFIED for a gateway that is none."""
    try:
        own = IPv6Interface(address)
    except ValueError:
        raise ApiError("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6") from None
    unusable = own.ip.is_multicast or own.ip.is_loopback or own.ip.is_unspecified or "%" in address
    if "/" not in address or unusable or own.network.prefixlen == 0:
        raise ApiError("INVALID_CIDR_ADDRESS_SPECIFIED", "IPv6")
    way = _ipv6(gateway, "gateway") if gateway else None
    return {"IPv6": (str(own),), "ipv6_gateway": "" if way is None else str(way)}


def name_servers(text: str) -> str:
    """A list with commas between, in its usual form. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    servers: list[str] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            servers.append(str(ip_address(entry)))
        except ValueError:
            raise bad_address("DNS") from None
    return ",".join(dict.fromkeys(servers))


def allowed_ipv4(addresses: Iterable[str]) -> tuple[str, ...]:
    """Addresses that a card may use. Raises INVALID_IP_ADDRESS_SPECIFIED."""
    return tuple(dict.fromkeys(str(_ipv4(text, "ipv4_allowed")) for text in addresses))


def allowed_ipv6(addresses: Iterable[str]) -> tuple[str, ...]:
    """As `allowed_ipv4`, for IPv6."""
    return tuple(dict.fromkeys(str(_ipv6(text, "ipv6_allowed")) for text in addresses))


def _ipv4(text: str, parameter: str) -> IPv4Address:
    try:
        return IPv4Address(text.strip())
    except ValueError:
        raise bad_address(parameter) from None


def _ipv6(text: str, parameter: str) -> IPv6Address:
    try:
        address = IPv6Address(text.strip())
    except ValueError:
        raise bad_address(parameter) from None
    if address.scope_id is not None:
        raise bad_address(parameter)
    return address


def _fits_host(address: IPv4Address) -> bool:
    beyond = address.is_multicast or address.is_loopback or address.is_unspecified or address.is_reserved
    return not beyond and address >= IPv4Address("1.0.0.0")


def _is_edge(interface: IPv4Interface) -> bool:
    return interface.ip in (interface.network.network_address, interface.network.broadcast_address)
