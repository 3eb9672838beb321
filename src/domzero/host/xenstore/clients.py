"""A client of the store: whose it is for ever, its transactions, its watches, the events that wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from domzero.host.xenstore.access import Caller
from domzero.host.xenstore.limits import HOST_QUEUE, NODE_STEPS
from domzero.host.xenstore.store import Domain, Store
from domzero.host.xenstore.tree import Node
from domzero.host.xenstore.view import View, unchanged
from domzero.host.xenstore.watches import Watch
from domzero.wire.xenstore import PAYLOAD_MAX, Access, Permissions, XenstoreError, home

Change = Callable[..., None]
"""A method of `View` that changes something."""


class Transaction:
    """A snapshot, what was done to it, and how to do it again."""

    def __init__(self, view: View) -> None:
        self.base = view.root
        self.view = view
        self.done: list[tuple[Change, tuple[Any, ...]]] = []

    def do(self, change: Change, arguments: tuple[Any, ...]) -> None:
        """Change the snapshot."""
        change(self.view, *arguments)
        self.done.append((change, arguments))

    def done_again(self, view: View) -> View:
        """The same changes, made to a tree in which nothing differs that they depended on."""
        for change, arguments in self.done:
            change(view, *arguments)
        return view


class Client:
    """Works on the store for one domain; no request of its own can make that another.

    Paths are absolute and well-formed. `transaction` is 0 outside of one. Every method may raise `XenstoreError`.
    `wake` is called when the first event waits, `overflow` when more wait than may.
    """

    def __init__(
        self, store: Store, domid: int, wake: Callable[[], None] | None = None,
        overflow: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.domain: Domain = store.domains[domid] if domid == 0 else store.guest(domid)
        self.domid = domid
        self.home = home(domid)
        self._wake = wake
        self._overflow = overflow
        self._events: dict[tuple[str, bytes], None] = {}
        self._most_events = store.limits.events if domid else HOST_QUEUE
        self._watches: dict[tuple[str, bytes, int], Watch] = {}
        self._transactions: dict[int, Transaction] = {}
        self._last = 0

    @property
    def caller(self) -> Caller:
        """Whose rights count."""
        return self.domain.caller

    def read(self, path: str, transaction: int = 0) -> bytes:
        """A node's value."""
        return self._view(transaction).node(path, Access.READ).value

    def listing(self, path: str, transaction: int = 0) -> Node:
        """A node, for the names of its children."""
        return self._view(transaction).listing(path)

    def permissions(self, path: str, transaction: int = 0) -> Permissions:
        """Who may use a node."""
        return self._view(transaction).node(path, Access.READ).permissions

    def write(self, path: str, value: bytes, transaction: int = 0) -> None:
        """Give a node a value; it is made where it is missing."""
        if self.domid and len(value) > self.store.limits.value_size:
            raise XenstoreError("ENOSPC")
        self._change(transaction, View.write, path, value)

    def make(self, path: str, transaction: int = 0) -> None:
        """Make a node where there is none."""
        self._change(transaction, View.make, path)

    def remove(self, path: str, transaction: int = 0) -> None:
        """Remove a node and all beneath it."""
        self._change(transaction, View.remove, path)

    def set_permissions(self, path: str, permissions: Permissions, transaction: int = 0) -> None:
        """Say who may use a node."""
        if self.domid and len(permissions) > self.store.limits.permissions:
            raise XenstoreError("ENOSPC")
        self._change(transaction, View.set_permissions, path, permissions)

    def begin(self) -> int:
        """Open a transaction: from now on it sees nobody else's changes."""
        if self.domid and self.domain.transactions >= self.store.limits.transactions:
            raise XenstoreError("ENOSPC")
        self._last = next(number for number in _numbers(self._last) if number not in self._transactions)
        self._transactions[self._last] = Transaction(self.store.snapshot(self.caller))
        self.domain.transactions += 1
        return self._last

    def finish(self, transaction: int, commit: bool) -> None:
        """Close a transaction. EAGAIN when what it touched was changed meanwhile; then nothing of it happened."""
        closed = self._transaction(transaction)
        del self._transactions[transaction]
        self.domain.transactions -= 1
        if not commit:
            return
        if not unchanged(closed.base, self.store.root, closed.view.touched):
            raise XenstoreError("EAGAIN")
        alone = closed.base is self.store.root
        self.store.worked += NODE_STEPS * len(closed.view.changes)
        self.store.commit_all(closed.view if alone else closed.done_again(self.store.snapshot(self.caller)))

    def watch(self, path: str, token: bytes, relative: bool = False) -> None:
        """Hear of every change at a path and beneath it; once at first in any case."""
        cut = len(self.home) + 1 if relative else 0
        key = (path, token, cut)
        if key in self._watches:
            raise XenstoreError("EEXIST")
        if self.domid and self.domain.watches >= self.store.limits.watches:
            raise XenstoreError("E2BIG")
        watch = self._watches[key] = Watch(self, path, token, cut)
        self.store.watches.add(watch)
        self.domain.watches += 1
        watch.tell(path)

    def unwatch(self, path: str, token: bytes, relative: bool = False) -> None:
        """Hear of it no more."""
        watch = self._watches.pop((path, token, len(self.home) + 1 if relative else 0), None)
        if watch is None:
            raise XenstoreError("ENOENT")
        self._drop(watch)

    def reset(self) -> None:
        """Drop all watches, the events that wait, and all transactions."""
        for watch in self._watches.values():
            self._drop(watch)
        self._watches.clear()
        self._events.clear()
        self.domain.transactions -= len(self._transactions)
        self._transactions.clear()

    def deliver(self, path: str, token: bytes) -> None:
        """An event happened. One that waits already is not kept twice: it says that something changed, not what.

        One that is too long for a message is left out, as xenstored does.
        """
        if (path, token) in self._events or len(path) + len(token) + 2 > PAYLOAD_MAX:
            return
        if len(self._events) >= self._most_events:
            if self._overflow:
                self._overflow()
            return
        self._events[path, token] = None
        if len(self._events) == 1 and self._wake:
            self._wake()

    @property
    def events_wait(self) -> bool:
        """Whether there are events to be taken."""
        return bool(self._events)

    def take_events(self) -> list[tuple[str, bytes]]:
        """The events that wait, oldest first; they wait no more."""
        events = list(self._events)
        self._events.clear()
        return events

    def _view(self, transaction: int) -> View:
        if not transaction:
            return self.store.view(self.caller)
        view = self._transaction(transaction).view
        if self.domid and len(view.touched) >= self.store.limits.transaction_nodes:
            raise XenstoreError("ENOSPC")
        return view

    def _change(self, transaction: int, change: Change, path: str, *arguments: Any) -> None:
        view = self._view(transaction)
        before = len(view.changes)
        if transaction:
            begun = self._transactions[transaction]
            if self.domid and len(begun.done) >= self.store.limits.transaction_nodes:
                raise XenstoreError("ENOSPC")
            begun.do(change, (path, *arguments))
        else:
            change(view, path, *arguments)
        self.store.worked += path.count("/") + NODE_STEPS * (len(view.changes) - before)
        if not transaction:
            self.store.commit(view)

    def _transaction(self, number: int) -> Transaction:
        if number not in self._transactions:
            raise XenstoreError("ENOENT")
        return self._transactions[number]

    def _drop(self, watch: Watch) -> None:
        self.store.watches.drop(watch)
        self.domain.watches -= 1


def _numbers(last: int) -> Iterator[int]:
    """Transaction ids after the last one given: 32 bits, never 0."""
    while True:
        last = last % 0xFFFF_FFFF + 1
        yield last
