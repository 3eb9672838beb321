"""What a VIF's and its network's rows mean for the card's end on the host. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import CardSpec
from domzero.toolstack.network.network_keys import DEFAULT_MTU, ethtool_settings, is_on, mtu_of
from domzero.toolstack.vm.specification import nic_slot

RATE_LIMIT = "ratelimit"
SUPPORTED_ALGORITHMS = (RATE_LIMIT,)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def card_spec(vif: Mapping[str, Any], network: Mapping[str, Any] | None, domid: int) -> CardSpec:
    """How a card is connected. Raises INVALID_DEVICE for a position that no card can have."""
    return CardSpec(
        domid,
        nic_slot(vif),
        vif["MAC"].lower(),
        card_mtu(vif, network),
        "" if network is None else network["bridge"],
        card_rules(vif, network),
    )


def card_mtu(vif: Mapping[str, Any], network: Mapping[str, Any] | None) -> int:
    """The card's own `mtu` key, an MTU that it was made with on purpose, or that of its network."""
    own = mtu_of(vif["other_config"]) or (vif["MTU"] if vif["MTU"] not in (0, DEFAULT_MTU) else 0)
    if own or network is None:
        return own or DEFAULT_MTU
    return mtu_of(network["other_config"]) or network["MTU"] or DEFAULT_MTU


def card_rules(vif: Mapping[str, Any], network: Mapping[str, Any] | None) -> CardRules:
    """Locking, rate and settings; where both say something, the card's word counts before its network's."""
    config = {**({} if network is None else network["other_config"]), **vif["other_config"]}
    return CardRules(
        locking=locking_of(vif, network),
        ipv4_allowed=vif["ipv4_allowed"],
        ipv6_allowed=vif["ipv6_allowed"],
        kilobytes_per_second=rate_of(vif),
        promiscuous=is_on(config.get("promiscuous", "")),
        settings=ethtool_settings(config),
    )


def locking_of(vif: Mapping[str, Any], network: Mapping[str, Any] | None) -> LockingMode:
    """The card's mode, which may be its network's."""
    mode = vif["locking_mode"]
    if mode == "network_default":
        mode = "unlocked" if network is None else network["default_locking_mode"]
    return LockingMode(mode)


def rate_of(vif: Mapping[str, Any]) -> int:
    """Kilobytes a second that the machine may send; 0 for no limit, also for a limit that is no number."""
    if vif["qos_algorithm_type"] != RATE_LIMIT:
        return 0
    text = vif["qos_algorithm_params"].get("kbps", "").strip()
    return int(text) if _NUMBER.fullmatch(text) else 0
