"""Sub-interfaces that carry one VLAN of an interface (IEEE 802.1Q)."""

from __future__ import annotations

import hashlib

from domzero.host.network.protocol import NetworkError
from domzero.host.network.tap import NAME_LIMIT

LAST_TAG = 4094


def vlan_name(device: str, tag: int) -> str:
    """`eth0.12`; where that is too long for the kernel, a name of the same length that is always the same.

    Raises `NetworkError` for a tag that is none. Tag 0, priority without a VLAN, is one.
    """
    if not 0 <= tag <= LAST_TAG:
        raise NetworkError(f"{tag} is no VLAN")
    name = f"{device}.{tag}"
    if len(name.encode()) <= NAME_LIMIT:
        return name
    digest = hashlib.sha256(device.encode()).hexdigest()
    return f"v{digest[:8]}.{tag}"
