"""Cards on Linux bridges: what a bridge may learn from a port, and what it sends there. Work for the network thread.

* A locked card's MAC is fixed to its port, and its port teaches the bridge nothing: frames for the bridge itself
  (IEEE 802.1D's reserved addresses) are learned from before any filter sees them, so that a filter alone would let a
  machine draw another one's traffic to itself.
* While a promiscuous card is on a bridge, the bridge learns nothing and works as a hub: each packet goes to every
  port, except for those to a locked card, whose place is fixed. Its other cards are sent what is not for them, too.
"""

from __future__ import annotations

from dataclasses import replace

from domzero.host.network.cards import is_tap
from domzero.host.network.links import PROMISCUOUS_FLAG, UP_FLAG, Link, Links
from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import NetworkError

STATIC = 0x40
"""NUD_NOARP: an entry that does not age."""

MASTER, STICKY = 0x04, 0x40
"""NTF_MASTER: the bridge's own table; NTF_STICKY: no frame from another port moves the entry."""

AGEING = 30000
"""Hundredths of a second that a bridge remembers a MAC: the kernel's default."""


def join(links: Links, tap: Link, bridge: Link | None, mac: str, rules: CardRules, *, new: bool = False) -> None:
    """Put a tap on a bridge, or on none, under its rules, and switch it on."""
    if rules.promiscuous and bridge is not None and not bridge.ours:
        raise NetworkError(f"a card cannot be promiscuous on {bridge.name}, which is not ours")
    master = bridge.index if bridge is not None else 0
    if new and rules.locking is LockingMode.UNLOCKED and not rules.promiscuous:
        links.set(tap, master=master, flags=UP_FLAG, change=UP_FLAG)
    else:
        links.set(tap, master=master)
        apply_rules(links, replace(tap, master=master), mac, rules, new=new)
        links.set(tap, flags=UP_FLAG, change=UP_FLAG)
    if bridge is not None:
        settle(links, bridge, promiscuous=rules.promiscuous)


def apply_rules(links: Links, tap: Link, mac: str, rules: CardRules, *, new: bool = False) -> None:
    """Bind a tap that is on a bridge to its machine's MAC, or let it go. A new one is not bound yet."""
    if tap.promiscuous != rules.promiscuous:
        # Noted at the tap itself, where `settle` and later daemons read it.
        links.set(tap, flags=PROMISCUOUS_FLAG if rules.promiscuous else 0, change=PROMISCUOUS_FLAG)
    if not tap.master:
        return
    fixed, learning = rules.locking is LockingMode.LOCKED, rules.locking is LockingMode.UNLOCKED
    # What was learned while the card was free to forge is forgotten.
    forgetting = {} if learning else {"flush": None}
    links.ask(tap.name, "brport", "set", index=tap.index, learning=int(learning), **forgetting)
    present = set() if new else _fixed(links, tap)
    for address in present - ({mac} if fixed else set()):
        links.ask(tap.name, "fdb", "del", ifindex=tap.index, lladdr=address, flags=MASTER)
    if fixed and mac not in present:
        links.ask(tap.name, "fdb", "replace", ifindex=tap.index, lladdr=mac, state=STATIC, flags=MASTER | STICKY)


def settle(links: Links, bridge: Link | None, *, promiscuous: bool = False) -> None:
    """Make a bridge of ours a hub, or a bridge again, as the cards that are on it now require.

    `promiscuous`: there is such a card for certain. Without that, only a bridge that is a hub is looked at closer.
    """
    if bridge is None or not bridge.ours or bridge.kind != "bridge":
        return
    was_hub = bridge.details.get("ageing_time") == 0
    if was_hub == promiscuous:
        return
    hub = promiscuous or any(port.promiscuous and is_tap(port) for port in links.ports(bridge.index))
    if hub != was_hub:
        flush = {"br_fdb_flush": 1} if hub else {}
        links.set(bridge, kind="bridge", br_ageing_time=0 if hub else AGEING, **flush)


def _fixed(links: Links, tap: Link) -> set[str]:
    """The MACs that were fixed to the port."""
    entries = links.ask(tap.name, "fdb", "dump", ifindex=tap.index)
    return {
        str(entry.get("lladdr")).lower()
        for entry in entries
        if entry.get("state") == STATIC and entry.get("master") and entry.get("ifindex") == tap.index
    }
