"""From the state that interfaces have to the state that they are to have, as an ordered list of steps: pure.

The way back after a failure is the same function: from what has come about to what was before. So every step is undone,
also one that was half done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from domzero.host.network.addresses import NOTHING, Addressing, Ipv6Switches
from domzero.host.network.bond import FIXED, must_be_remade
from domzero.host.network.layout import BOND, BRIDGE, VLAN, Layout, State, Wanted

ORDER: Mapping[str, int] = {BOND: 1, VLAN: 2, BRIDGE: 3}
"""What stands on what: a physical interface (0) on nothing."""

UNMAKING: Mapping[str, int] = {VLAN: 0, BOND: 1, BRIDGE: 2}
NEW = State()
"""What an interface that has just been made has: nothing."""


@dataclass(frozen=True, slots=True)
class Make:
    """Make an interface of ours, switched off."""

    name: str
    state: State


@dataclass(frozen=True, slots=True)
class Unmake:
    """Remove an interface of ours."""

    name: str


@dataclass(frozen=True, slots=True)
class Join:
    """Make an interface a port of a bridge or member of a bond; empty: of none."""

    name: str
    master: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Switch an interface on or off."""

    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class SetMac:
    """Give an interface a MAC."""

    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class SetMtu:
    """Give an interface an MTU."""

    name: str
    mtu: int


@dataclass(frozen=True, slots=True)
class SetOptions:
    """Change a bond's options under traffic."""

    name: str
    options: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SetIpv6:
    """How the kernel treats IPv6 on an interface."""

    name: str
    switches: Ipv6Switches


@dataclass(frozen=True, slots=True)
class SetAddresses:
    """Give an interface just these addresses and routes of a family (4 or 6)."""

    name: str
    version: int
    addressing: Addressing


@dataclass(frozen=True, slots=True)
class Tune:
    """ethtool's settings."""

    name: str
    settings: Mapping[str, str]


Step = Make | Unmake | Join | Switch | SetMac | SetMtu | SetOptions | SetIpv6 | SetAddresses | Tune


def steps(present: Layout, wanted: Wanted) -> list[Step]:
    """What is to be done, in order; nothing when everything is as wanted. Interfaces not in `wanted` are left alone."""
    gone = _gone(present, wanted)
    left = [name for name, there in present.items() if _leaves(name, there, wanted, gone)]
    # What there is once everything that has to go is gone: from there on, things are only added.
    middle = {
        name: _alone(there, present) if name in left else there for name, there in present.items() if name not in gone
    }
    final = {name: state for name, state in wanted.items() if state is not None}
    order = sorted(final, key=lambda name: (ORDER.get(final[name].kind, 0), name))
    old = [name for name in order if name in middle]
    return [
        *(Join(name, "") for name in left),
        *(step for name in old for step in _empty(name, middle[name], final[name])),
        *(Unmake(name) for name in sorted(gone, key=lambda name: (UNMAKING[present[name].kind], name))),
        *(step for name in order for step in _make(name, middle, final)),
        *(step for name in order for step in _shape(name, middle.get(name), final[name])),
        *(step for name in order for step in _port(name, middle.get(name), final)),
        *(step for name in order for step in _switch(name, middle.get(name), final)),
        *(step for name in order for step in _fill(name, middle.get(name, NEW), final[name])),
    ]


def way_back(before: Layout, wanted: Wanted) -> dict[str, State | None]:
    """What is to be wanted after a failure on the way to `wanted`: everything as it was before.

    Of a device's settings, those that were to change: others come and go by themselves, as a bridge's speed does.
    """
    return {name: _as_before(before.get(name), state) for name, state in wanted.items()}


def _as_before(there: State | None, state: State | None) -> State | None:
    if there is None:
        return None
    changed = () if state is None else state.settings
    return replace(there, settings={key: value for key, value in there.settings.items() if key in changed})


def _gone(present: Layout, wanted: Wanted) -> set[str]:
    """The interfaces of ours that have to go, or to be made anew, with those that stand on them."""
    gone = {name for name in present.keys() & wanted.keys() if _is_other(present[name], wanted[name])}
    on_top = {name for name, there in present.items() if there.kind == VLAN and there.ours and there.parent in gone}
    return gone | (on_top & wanted.keys())


def _is_other(there: State, state: State | None) -> bool:
    if state is None:
        return True
    if state.kind == BOND:
        return must_be_remade(there.options, state.options)
    return state.kind == VLAN and (there.parent, there.options.get("id")) != (state.parent, state.options.get("id"))


def _leaves(name: str, there: State, wanted: Wanted, gone: set[str]) -> bool:
    """Whether an interface that stays leaves its bridge or bond."""
    if not there.master or name in gone:
        return False
    state = wanted.get(name)
    return there.master in gone or (state is not None and state.master != there.master)


def _alone(there: State, present: Layout) -> State:
    """What has left its bridge or bond. The kernel switches off what leaves a bond."""
    master = present.get(there.master)
    return replace(there, master="", up=there.up and not (master is not None and master.kind == BOND))


def _empty(name: str, there: State, state: State) -> Iterable[Step]:
    """Take away what an interface is not to have, before another one gets it."""
    for version in (4, 6):
        has, wants = _addressing(there, version), _addressing(state, version)
        if has is None or has == NOTHING or wants is None:
            continue
        if wants == NOTHING:
            yield SetAddresses(name, version, NOTHING)
        elif any(route not in wants.routes for route in has.routes):
            # Another interface may be about to get that route: the kernel takes no two alike.
            yield SetAddresses(name, version, replace(has, routes=tuple(r for r in has.routes if r in wants.routes)))
    if state.ipv6_switches is not None and state.ipv6_switches.disabled and _has_other_switches(there, state):
        yield SetIpv6(name, state.ipv6_switches)


def _make(name: str, middle: Layout, final: Layout) -> Iterable[Step]:
    """A new interface, without IPv6 unless it is wanted; a bond with its members. Or an old bond's new options."""
    state, there = final[name], middle.get(name)
    if there is None:
        yield Make(name, state)
        if state.ipv6_switches is not None:
            yield SetIpv6(name, state.ipv6_switches)
    if state.kind != BOND:
        return
    options = {key: value for key, value in state.options.items() if key not in FIXED}
    if there is not None and any(there.options.get(key) != value for key, value in options.items()):
        yield SetOptions(name, options)
    for member, needed in final.items():
        present = middle.get(member)
        if needed.master == name and present is not None and present.master != name:
            # The kernel takes no member that is switched on, and switches it on itself.
            if present.up:
                yield Switch(member, up=False)
            yield Join(member, name)


def _shape(name: str, there: State | None, state: State) -> Iterable[Step]:
    """MAC, MTU, offloads."""
    if there is not None and state.mac and there.mac != state.mac:
        yield SetMac(name, state.mac)
    if state.mtu is not None and (there is None or there.mtu != state.mtu):
        yield SetMtu(name, state.mtu)
    known = {} if there is None else there.settings
    settings = {key: value for key, value in state.settings.items() if known.get(key) != value}
    if settings:
        yield Tune(name, settings)


def _port(name: str, there: State | None, final: Layout) -> Iterable[Step]:
    """What comes to a bridge. Members of bonds are there already."""
    master = final[name].master
    if master and not _is_bond(master, final) and (there is None or there.master != master):
        yield Join(name, master)


def _switch(name: str, there: State | None, final: Layout) -> Iterable[Step]:
    state = final[name]
    switched_by_bond = _is_bond(state.master, final) and there is not None and there.master != state.master
    up = False if there is None else there.up or switched_by_bond
    if up != state.up:
        yield Switch(name, up=state.up)


def _fill(name: str, there: State, state: State) -> Iterable[Step]:
    """Give what an interface is to have, after another one lost it."""
    switches = state.ipv6_switches
    if there is not NEW and switches is not None and not switches.disabled and _has_other_switches(there, state):
        yield SetIpv6(name, switches)
    for version in (4, 6):
        wants = _addressing(state, version)
        if wants not in (None, NOTHING) and wants != _addressing(there, version):
            yield SetAddresses(name, version, wants)


def _addressing(state: State, version: int) -> Addressing | None:
    return state.ipv4 if version == 4 else state.ipv6


def _has_other_switches(there: State, state: State) -> bool:
    """Where the kernel has no IPv6, nothing has to be turned off."""
    if there.ipv6_switches is None and state.ipv6_switches is not None and state.ipv6_switches.disabled:
        return False
    return there.ipv6_switches != state.ipv6_switches


def _is_bond(name: str, final: Layout) -> bool:
    return name in final and final[name].kind == BOND
