"""XenServer's bonds as the kernel's (Documentation/networking/bonding.rst): modes and properties.

`active-backup` is mode 1 and `lacp` is mode 4 (IEEE 802.1AX). `balance-slb` becomes mode 1 as well: the kernel has
nothing like it that is right under a bridge. Its balance-alb writes the members' own MACs over those of the machines,
and its balance-xor, without a switch that knows of the bond, brings each broadcast of a machine back in through the
other member, so that the bridge looks for the machine outside. With mode 1 a failing member is replaced just the same;
only the balancing is missing, and said to be. Open vSwitch balances.

Of XenServer's properties, miimon, updelay, downdelay, hashing_algorithm and lacp-time are obeyed. The kernel always
asks the driver for the carrier (use_carrier) and moves no traffic by itself (rebalance-interval);
lacp-aggregation-key is not obeyed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from domzero.host import process
from domzero.host.network.plan import BondSpec
from domzero.host.network.protocol import NetworkError

log = logging.getLogger(__name__)

ACTIVE_BACKUP, LACP = 1, 4
MODES: Mapping[str, int] = {"active-backup": ACTIVE_BACKUP, "balance-slb": ACTIVE_BACKUP, "lacp": LACP}
DEFAULTS: Mapping[str, int] = {"miimon": 100, "downdelay": 200, "updelay": 31000}
"""Milliseconds, as XenServer has them."""

LARGEST = 0x7FFFFFFF
HASHES: Mapping[str, int] = {"src_mac": 0, "layer2": 0, "tcpudp_ports": 1, "layer3+4": 1, "layer2+3": 2}
"""`xmit_hash_policy` by XenServer's word, or the kernel's. The kernel's layer 2 policy looks at both MACs."""

LACP_RATES: Mapping[str, int] = {"slow": 0, "fast": 1}
FIXED = ("mode", "ad_lacp_rate")
"""What can only be chosen while a bond is down and, the mode, without members."""


def kernel_options(spec: BondSpec) -> dict[str, int]:
    """The options that the kernel is to have, by its own names. Raises `NetworkError` for what cannot be."""
    if spec.mode not in MODES:
        raise NetworkError(f"bond {spec.name}: there is no mode {spec.mode!r}")
    if not spec.members:
        raise NetworkError(f"bond {spec.name} has no members")
    mode = MODES[spec.mode]
    if spec.mode == "balance-slb":
        log.info("bond %s: this backend has no balance-slb and does active-backup; Open vSwitch balances", spec.name)
    times = {key: _milliseconds(spec, key) for key in DEFAULTS}
    interval = times["miimon"] = times["miimon"] or DEFAULTS["miimon"]
    options = {
        "mode": mode,
        "miimon": interval,
        # The kernel counts delays in whole intervals.
        "downdelay": times["downdelay"] // interval * interval,
        "updelay": times["updelay"] // interval * interval,
    }
    if mode == LACP:
        options["xmit_hash_policy"] = _word(spec, "hashing_algorithm", HASHES, "tcpudp_ports")
        options["ad_lacp_rate"] = _word(spec, "lacp-time", LACP_RATES, "slow")
    return options


async def load_bonding() -> None:
    """See that the kernel's module is there, if it has one, without the `bond0` that it makes if nobody forbids it.

    That bond would be nobody's, and would have the name of the first one that XenServer makes. A module that is there
    already is no error.
    """
    try:
        await process.run(["modprobe", "bonding", "max_bonds=0"], timeout=20.0)
    except process.ProcessError as error:
        log.info("the bonding module was not loaded: %s", error)


def mac_of(spec: BondSpec, macs: Mapping[str, str]) -> str:
    """The bond's own MAC: the given one, or that of its first member."""
    return spec.mac.lower() or macs[spec.members[0]]


def must_be_remade(present: Mapping[str, int], wanted: Mapping[str, int]) -> bool:
    """Whether options differ that cannot be changed under traffic."""
    return any(key in wanted and present.get(key) != wanted[key] for key in FIXED)


def _milliseconds(spec: BondSpec, key: str) -> int:
    value = spec.properties.get(key, "").strip()
    if not value:
        return DEFAULTS[key]
    if not (value.isascii() and value.isdecimal()) or int(value[:11]) > LARGEST:
        raise NetworkError(f"bond {spec.name}: {key} is no number of milliseconds: {value[:40]!r}")
    return int(value)


def _word(spec: BondSpec, key: str, meanings: Mapping[str, int], default: str) -> int:
    value = spec.properties.get(key, "") or default
    if value not in meanings:
        raise NetworkError(f"bond {spec.name}: {key} cannot be {value[:40]!r}")
    return meanings[value]
