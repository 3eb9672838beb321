"""Carrying out the part of a plan that is interfaces, with the way back. Blocking work for the network thread.

The interfaces that are not ours are written down before they are touched, so that they get back what they had when a
plan no longer names them, whatever became of the daemon meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from domzero.host.network import files
from domzero.host.network.changes import Step, steps, way_back
from domzero.host.network.ethtool import normalised
from domzero.host.network.layout import Layout, State, wanted_layout
from domzero.host.network.links import Links
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.protocol import NetworkError
from domzero.host.network.states import perform, read_layout

log = logging.getLogger(__name__)

Perform = Callable[[Links, Step], None]
LayoutOf = Callable[[NetworkPlan, Layout, Layout], dict[str, State | None]]


@dataclass(frozen=True, slots=True)
class Undo:
    """What to return to: the states to be wanted again, and what had been written down."""

    wanted: Mapping[str, State | None]
    found: Layout


class PlannedLinks:
    """The interfaces of one backend. `record` is the file of what they were; `perform` carries out a step; `layout`
    says what a plan asks of them."""

    def __init__(self, record: Path, perform: Perform = perform, layout: LayoutOf = wanted_layout) -> None:
        self._record = record
        self._perform = perform
        self._layout = layout

    def change(self, links: Links, plan: NetworkPlan) -> Undo:
        """Make the interfaces what the plan says. Raises `NetworkError`, with everything as it was before."""
        written = files.read_found(self._record)
        present = read_layout(links, named_interfaces(plan) | written.keys())
        found = noted(plan, present, written)
        wanted = self._layout(plan, present, found)
        undo = Undo(way_back(present, wanted), written)
        if found != written:
            files.write_found(self._record, found)
        try:
            for step in steps(present, wanted):
                self._perform(links, step)
        except NetworkError:
            self.go_back(links, undo)
            raise
        return undo

    def go_back(self, links: Links, undo: Undo) -> None:
        """Return, as far as can be, to what was before. What cannot be undone is logged."""
        present = read_layout(links, frozenset(undo.wanted))
        for step in steps(present, undo.wanted):
            try:
                perform(links, step)
            except NetworkError as error:
                log.error("a change of the network could not be undone: %s", error)
        files.write_found(self._record, undo.found)

    def settle(self, links: Links, plan: NetworkPlan) -> None:
        """Forget what interfaces had that have it back now."""
        found = files.read_found(self._record)
        named, taken = named_interfaces(plan), taken_interfaces(plan)
        kept = {
            name: state if name in taken or links.find(name) is None else _untaken(state)
            for name, state in found.items()
            if name in named or links.find(name) is None
        }
        if kept != found:
            files.write_found(self._record, kept)


def noted(plan: NetworkPlan, present: Layout, written: Layout) -> dict[str, State]:
    """What is to be on record before a plan is carried out: of each interface not ours, what it is or was.

    Addresses and master are noted only of those that the plan takes for itself, and settings only where the plan sets
    them; others may change as they like.
    """
    found = dict(written)
    taken = taken_interfaces(plan)
    specs = {interface.device: interface for interface in plan.interfaces}
    for name in named_interfaces(plan):
        there = present.get(name)
        if there is None or there.ours:
            continue
        note = found.get(name, replace(_untaken(there), settings={}))
        changed = normalised(specs[name].settings) if name in specs else {}
        settings = {key: value for key, value in there.settings.items() if key in changed}
        note = replace(note, settings={**settings, **note.settings})
        if name in taken and note.ipv4 is None:
            master = present.get(there.master)
            note = replace(
                note,
                ipv4=there.ipv4,
                ipv6=there.ipv6,
                ipv6_switches=there.ipv6_switches,
                master="" if master is not None and master.ours else there.master,
            )
        found[name] = note
    return found


def named_interfaces(plan: NetworkPlan) -> set[str]:
    """The interfaces, not ours, that a plan gives leave to touch."""
    bonds = {bond.name for bond in plan.bonds}
    named = {interface.device for interface in plan.interfaces}
    named |= {member for bond in plan.bonds for member in bond.members}
    return named | {bridge.uplink for bridge in plan.bridges if bridge.uplink} - bonds


def taken_interfaces(plan: NetworkPlan) -> set[str]:
    """Those of them that become a bridge's port or a bond's member, and give their addresses up for it."""
    members = {member for bond in plan.bonds for member in bond.members}
    bonds = {bond.name for bond in plan.bonds}
    return members | {bridge.uplink for bridge in plan.bridges if bridge.uplink and bridge.tag < 0} - bonds


def _untaken(state: State) -> State:
    """What is noted of an interface that keeps its addresses."""
    return replace(state, ipv4=None, ipv6=None, ipv6_switches=None, master="")
