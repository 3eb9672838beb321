"""Packets byte for byte, for tests that forge them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

ARP, IPV4, VLAN, IPV6 = 0x0806, 0x0800, 0x8100, 0x86DD
ICMPV6, UDP, FRAGMENT = 58, 17, 44


def hardware(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def arp(mac: str, address: str, target: str = "192.0.2.99", *, hardware_length: int = 6, operation: int = 1) -> bytes:
    head = struct.pack(">HHBBH", 1, IPV4, hardware_length, 4, operation)
    return head + hardware(mac) + IPv4Address(address).packed + bytes(6) + IPv4Address(target).packed


def ipv4(source: str, target: str = "192.0.2.99", payload: bytes = bytes(26), protocol: int = 253) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    head += IPv4Address(source).packed + IPv4Address(target).packed
    checksum = head[:10] + struct.pack(">H", internet_checksum(head)) + head[12:]
    return checksum + payload


def udp(source: int, target: int) -> bytes:
    return struct.pack(">HHHH", source, target, 26, 0) + bytes(18)


def ipv6(source: str, target: str = "ff02::1", payload: bytes = bytes(6), following: int = 59) -> bytes:
    head = struct.pack(">IHBB", 0x60000000, len(payload), following, 255)
    return head + IPv6Address(source).packed + IPv6Address(target).packed + payload


def icmpv6(source: str, kind: int, body: bytes, target: str = "ff02::1") -> bytes:
    message = struct.pack(">BBH", kind, 0, 0) + body
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed + struct.pack(">II", len(message), ICMPV6)
    message = message[:2] + struct.pack(">H", internet_checksum(pseudo + message)) + message[4:]
    return ipv6(source, target, message, ICMPV6)


def neighbour(source: str, kind: int, about: str, target: str = "ff02::1") -> bytes:
    """A neighbour solicitation (135) or advertisement (136) about an address."""
    return icmpv6(source, kind, bytes(4) + IPv6Address(about).packed, target)


def fragmented(source: str, following: int, payload: bytes) -> bytes:
    """The first part of a packet that is split."""
    return ipv6(source, "ff02::1", struct.pack(">BBHI", following, 0, 1, 7) + payload, FRAGMENT)


def tagged(tag: int, kind: int, payload: bytes) -> bytes:
    """What follows an Ethernet header of type 802.1Q."""
    return struct.pack(">HH", tag, kind) + payload


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
