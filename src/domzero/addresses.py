"""Hosts and ports as they stand in https addresses."""

from __future__ import annotations

HTTPS_PORT = 443
"""The port that an https address need not name."""


def authority(host: str, port: int) -> str:
    """Host and port as they stand in an https address."""
    return bracketed(host) if port == HTTPS_PORT else f"{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """The host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
