"""The store of one host: the committed tree, the domains, the watches. It does no I/O and knows no connection's bytes.

Whoever works on it does so as a `Client` (clients.py). What is committed goes to a `Recorder`, then others hear of it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from domzero.host.xenstore.access import HOST, Audience, Caller, allowed, without
from domzero.host.xenstore.holdings import Holdings
from domzero.host.xenstore.limits import DEFAULT, Limits, TokenBucket
from domzero.host.xenstore.tree import NOBODY, Cause, Change, Node, differences, find, fresh_node, parent, walk
from domzero.host.xenstore.view import View
from domzero.host.xenstore.watches import WatchTable
from domzero.wire.xenstore import INTRODUCED, RELEASED, Access, Permissions, XenstoreError


@dataclass(slots=True)
class State:
    """What outlives a daemon: the tree, the domains (with the one that each may act for), who may watch for them."""

    root: Node = field(default_factory=fresh_node)
    domains: dict[int, int | None] = field(default_factory=dict)
    specials: dict[str, Permissions] = field(default_factory=lambda: {INTRODUCED: NOBODY, RELEASED: NOBODY})


class Recorder(Protocol):
    """Makes sure that what is committed outlives the daemon."""

    def nodes(self, changes: Iterable[Change]) -> None:
        """Nodes changed, all at once or not at all."""
        ...

    def domain(self, domid: int, target: int | None) -> None:
        """A domain was introduced, or got a target."""
        ...

    def released(self, domid: int) -> None:
        """A domain is gone."""
        ...

    def special(self, name: str, permissions: Permissions) -> None:
        """Others may watch for an event that is no node's."""
        ...


class Connected(Protocol):
    """What ends with its domain."""

    def end(self) -> None:
        """The domain was released."""
        ...


@dataclass(slots=True)
class Domain:
    """A domain that may connect, and what it uses."""

    caller: Caller
    bucket: TokenBucket
    shut_down: bool = False
    watches: int = 0
    transactions: int = 0
    connections: list[Connected] = field(default_factory=list)


class Store:
    """One tree for all. Every method is done when it returns; nothing comes between its parts.

    `now` gives the time in seconds, never less than before. `told` counts the events that changes have caused, `worked`
    the steps (`limits.NODE_STEPS`) that they took, in transactions too.
    """

    def __init__(
        self, now: Callable[[], float], limits: Limits = DEFAULT, state: State | None = None,
        recorder: Recorder | None = None,
    ) -> None:  # fmt: skip
        state = state or State()
        self.root = state.root
        self.specials = state.specials
        self.limits = limits
        self.now = now
        self.watches = WatchTable()
        self.holdings = Holdings()
        self.told = self.worked = 0
        highest = 0
        for path, node in walk("/", self.root):
            self.holdings.note(Change(path, None, node))
            highest = max(highest, node.version, node.listing)
        self.fresh: Callable[[], int] = itertools.count(highest + 1).__next__
        self._epoch = self.fresh()
        self.domains = {0: self._domain(HOST)}
        for domid, target in state.domains.items():
            self.domains[domid] = self._domain(Caller(domid, target))
        self._recorder = recorder

    @property
    def state(self) -> State:
        """What would have to be kept now. The tree in it will not change."""
        self._epoch = self.fresh()
        domains = {domid: domain.caller.target for domid, domain in self.domains.items() if domid}
        return State(self.root, domains, dict(self.specials))

    def view(self, caller: Caller) -> View:
        """The committed tree itself, for one change, which is to be committed."""
        return View(caller, self.root, self.fresh, self._epoch, self._room(caller))

    def snapshot(self, caller: Caller) -> View:
        """The committed tree as it is now, to be worked on, committed or dropped at any time."""
        self._epoch = self.fresh()
        return View(caller, self.root, self.fresh, self.fresh(), self._room(caller))

    def commit(self, view: View) -> None:
        """The one change that was made to a `view` has happened."""
        if view.changes:
            self._commit(view.root, view.changes)

    def commit_all(self, view: View) -> None:
        """What was done to a `snapshot` of the present tree happens: what came of it is told, once for each node."""
        if view.changes:
            self._commit(view.root, list(_net(self.root, view.root, view.changes)))

    def introduce(self, domid: int) -> None:
        """Let a domain connect, and tell who waits for it. Raises `XenstoreError` (EINVAL) for domain 0."""
        if domid == 0:
            raise XenstoreError("EINVAL")
        if domid not in self.domains:
            self.domains[domid] = self._domain(Caller(domid))
            if self._recorder:
                self._recorder.domain(domid, None)
        self.tell(INTRODUCED)

    def release(self, domid: int) -> None:
        """End a domain's connections, take away what it owns and what it was granted, and tell who waits for it.

        Raises `XenstoreError`: EINVAL for domain 0, ENOENT for one that was not introduced.
        """
        domain = self.guest(domid)
        del self.domains[domid]
        for connection in tuple(domain.connections):
            connection.end()
        for other, remaining in self.domains.items():
            if remaining.caller.target == domid:
                self.set_target(other, None)
        self._disown(domid)
        if self._recorder:
            self._recorder.released(domid)
        self.tell(RELEASED)

    def shut_down(self, domid: int) -> None:
        """A domain crashed or shut down but is still there: who waits for it is told once."""
        domain = self.guest(domid)
        if not domain.shut_down:
            domain.shut_down = True
            self.tell(RELEASED)

    def set_target(self, domid: int, target: int | None) -> None:
        """Let a domain act for another, too, as the one that emulates its devices has to."""
        domain = self.guest(domid)
        if target is not None:
            self.guest(target)
        domain.caller = Caller(domid, target)
        if self._recorder:
            self._recorder.domain(domid, target)

    def set_special(self, name: str, permissions: Permissions) -> None:
        """Say who hears of an event that is no node's."""
        self.specials[name] = permissions
        if self._recorder:
            self._recorder.special(name, permissions)

    def guest(self, domid: int) -> Domain:
        """A domain that was introduced. Raises `XenstoreError`: EINVAL for domain 0, ENOENT for an unknown one."""
        if domid == 0:
            raise XenstoreError("EINVAL")
        if domid not in self.domains:
            raise XenstoreError("ENOENT")
        return self.domains[domid]

    def tell(self, name: str) -> None:
        """An event that is no node's happened."""
        for watch in self.watches.at(name):
            if allowed(watch.watcher.caller, self.specials[name], Access.READ):
                watch.tell(name)

    def check(self) -> bool:
        """Whether what is counted agrees with the tree."""
        counted = Holdings()
        for path, node in walk("/", self.root):
            counted.note(Change(path, None, node))
        known = {*self.domains, *(entry.domid for _, node in walk("/", self.root) for entry in node.permissions)}
        return all(
            counted.owned(domid) == self.holdings.owned(domid) and counted.naming(domid) == self.holdings.naming(domid)
            for domid in known
        )

    def _domain(self, caller: Caller) -> Domain:
        return Domain(caller, TokenBucket(self.limits.rate, self.limits.burst, self.now()))

    def _room(self, caller: Caller) -> int:
        return sys.maxsize if caller.privileged else self.limits.nodes - self.holdings.owned(caller.domid)

    def _commit(self, root: Node, changes: list[Change]) -> None:
        if self._recorder:
            self._recorder.nodes(changes)
        self.root = root
        for change in changes:
            self.holdings.note(change)
        for change in changes:
            self._tell_of(change)

    def _tell_of(self, change: Change) -> None:
        if change.cause is Cause.PARENT:
            return
        audience = None
        for group in self.watches.groups(change.path, beneath=change.cause is Cause.DIRECT):
            audience = audience or self._audience(change)
            if group and audience.has(next(iter(group)).watcher.caller):
                for watch in tuple(group):
                    self.told += 1
                    watch.tell(change.path)

    def _audience(self, change: Change) -> Audience:
        """Those who may read the node or the one above it, or could before."""
        nodes = (change.after, change.before, find(self.root, parent(change.path)))
        return Audience([node.permissions for node in nodes if node is not None])

    def _disown(self, domid: int) -> None:
        for name, permissions in tuple(self.specials.items()):
            if any(entry.domid == domid for entry in permissions):
                self.set_special(name, without(domid, permissions))
        view = self.snapshot(HOST)
        for path in self.holdings.naming(domid):
            node = find(view.root, path)
            if node is None:
                continue  # it went with one above it
            if node.permissions[0].domid == domid and path != "/":
                view.remove(path)
            else:
                view.set_permissions(path, without(domid, node.permissions))
        self.commit_all(view)


def _net(before: Node, after: Node, changes: list[Change]) -> Iterator[Change]:
    """Each node that differs, once."""
    causes = {change.path: change.cause for change in changes}
    if any(change.after is None for change in changes):
        for change in differences("/", before, after):
            made_for_child = change.before is None and causes.get(change.path) is Cause.PARENT
            yield replace(change, cause=Cause.PARENT) if made_for_child else change
        return
    for path, cause in causes.items():
        yield Change(path, find(before, path), find(after, path), cause)
