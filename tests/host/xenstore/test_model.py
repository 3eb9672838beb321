"""The store beside a plain dictionary, several clients and transactions at once, in any order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from domzero.host.xenstore import frames
from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.frames import Entry, Kind
from domzero.host.xenstore.store import State, Store
from domzero.host.xenstore.tree import Cause, Change, walk
from domzero.wire.xenstore import Access, Permission, Permissions, XenstoreError
from tests.host.xenstore.model import Model, Nodes, above, is_within, may

DOMAINS = (0, 1, 2)
PATHS = ("/", "/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/b", "/e/b/c/d")
PERMISSIONS = st.builds(
    lambda owner, rest: (owner, *rest),
    st.builds(Permission, st.sampled_from(DOMAINS), st.sampled_from(list(Access))),
    st.lists(st.builds(Permission, st.sampled_from(DOMAINS), st.sampled_from(list(Access))), max_size=2),
)
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["read", "directory", "permissions", "make", "remove"]), st.sampled_from(PATHS)),
    st.tuples(st.just("write"), st.sampled_from(PATHS), st.binary(max_size=2)),
    st.tuples(st.just("set_permissions"), st.sampled_from(PATHS), PERMISSIONS),
)
Operation = tuple[Any, ...]


class Frames:
    """A recorder that keeps the frames."""

    def __init__(self) -> None:
        self.content = b""

    def nodes(self, changes: Iterable[Change]) -> None:
        self.content += frames.encode(
            frames.node(change.path, change.after) if change.after else Entry(Kind.GONE, change.path)
            for change in changes
            if change.cause is not Cause.REMOVED_WITH
        )

    def domain(self, domid: int, target: int | None) -> None:
        self.content += frames.encode([frames.domain(domid, target)])

    def released(self, domid: int) -> None:
        self.content += frames.encode([Entry(Kind.RELEASED, str(domid))])

    def special(self, name: str, permissions: Permissions) -> None:
        self.content += frames.encode([Entry(Kind.SPECIAL, name, permissions)])


def nodes_of(state: State | Store) -> Nodes:
    return {path: (node.value, node.permissions) for path, node in walk("/", state.root)}


def done(client: Client, operation: Operation, transaction: int) -> object:
    """What the store answers, as the model does."""
    name, *arguments = operation
    try:
        if name == "directory":
            return sorted(client.listing(arguments[0], transaction).children)
        return getattr(client, name)(*arguments, transaction)
    except XenstoreError as error:
        return error.code


def has_reason(log: list[tuple[Operation, object]], meanwhile: set[str]) -> bool:
    """Whether something was written that an operation of the log may depend on."""
    touched = [operation[1] for operation, _ in log]
    return any(is_within(path, other) or is_within(other, path) for path in meanwhile for other in touched)


def ended(client: Client, transaction: int, commit: bool) -> bool:
    """False when it has to be tried again."""
    try:
        client.finish(transaction, commit)
    except XenstoreError as error:
        if error.code != "EAGAIN":
            raise
        return False
    return True


class Stores(RuleBasedStateMachine):
    """Clients of three domains, each with up to three transactions and some watches."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded = Frames()
        self.store = Store(lambda: 0.0, recorder=self.recorded)
        self.store.introduce(1)
        self.store.introduce(2)
        self.model = Model()
        self.clients = [Client(self.store, domid) for domid in DOMAINS]
        self.open: dict[tuple[int, int], tuple[Model, list[tuple[Operation, object]], set[str]]] = {}
        self.watched: dict[int, set[str]] = {domid: set() for domid in DOMAINS}

    @rule(who=st.sampled_from(DOMAINS), operation=OPERATIONS)
    def directly(self, who: int, operation: Operation) -> None:
        before = dict(self.model.nodes)
        assert done(self.clients[who], operation, 0) == self.model.do(who, *operation)
        self.committed(before)

    @rule(who=st.sampled_from(DOMAINS))
    def begin(self, who: int) -> None:
        if sum(owner == who for owner, _ in self.open) < 3:
            snapshot = Model(dict(self.model.nodes))
            self.open[who, self.clients[who].begin()] = (snapshot, [], set())

    @rule(data=st.data(), operation=OPERATIONS)
    def within(self, data: st.DataObject, operation: Operation) -> None:
        if self.open:
            who, number = data.draw(st.sampled_from(sorted(self.open)))
            snapshot, log, _ = self.open[who, number]
            result = done(self.clients[who], operation, number)
            assert result == snapshot.do(who, *operation)
            log.append((operation, result))

    @rule(data=st.data(), commit=st.booleans())
    def finish(self, data: st.DataObject, commit: bool) -> None:
        if not self.open:
            return
        who, number = data.draw(st.sampled_from(sorted(self.open)))
        _, log, meanwhile = self.open.pop((who, number))
        before, again = dict(self.model.nodes), Model(dict(self.model.nodes))
        if not ended(self.clients[who], number, commit):
            assert commit
            assert has_reason(log, meanwhile)
        elif commit:
            # It is as if all of it had happened only now.
            assert [again.do(who, *operation) for operation, _ in log] == [result for _, result in log]
            self.model.nodes, self.model.written = again.nodes, again.written
        self.committed(before)

    @rule(who=st.sampled_from(DOMAINS), path=st.sampled_from(PATHS))
    def watch(self, who: int, path: str) -> None:
        if path not in self.watched[who]:
            self.clients[who].watch(path, b"token")
            self.watched[who].add(path)
            assert (path, b"token") in self.clients[who].take_events()

    @rule(who=st.sampled_from(DOMAINS), path=st.sampled_from(PATHS))
    def unwatch(self, who: int, path: str) -> None:
        if path in self.watched[who]:
            self.clients[who].unwatch(path, b"token")
            self.watched[who].remove(path)

    def committed(self, before: Nodes) -> None:
        """What was written concerns every open transaction, and those who watch."""
        written, after = self.model.written, self.model.nodes
        self.model.written = set()
        for _, _, meanwhile in self.open.values():
            meanwhile |= written
        for who, client in zip(DOMAINS, self.clients, strict=True):
            told = {path for path, _ in client.take_events()}
            for path in told:
                assert any(is_within(path, top) for top in self.watched[who])
                around = [tree.get(place) for tree in (before, after) for place in (path, above(path))]
                assert any(node is not None and may(who, node[1], Access.READ) for node in around)
            for path in before.keys() & after.keys():
                nodes = (before[path], after[path], after[above(path)])
                visible = any(may(who, permissions, Access.READ) for _, permissions in nodes)
                if before[path] != after[path] and visible and any(is_within(path, top) for top in self.watched[who]):
                    assert path in told
            if who == 0:
                changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
                for top in self.watched[0]:
                    assert not any(is_within(path, top) for path in changed) or any(
                        is_within(path, top) for path in told
                    )

    @invariant()
    def same(self) -> None:
        assert nodes_of(self.store) == self.model.nodes
        assert self.store.check()

    def teardown(self) -> None:
        state, left = frames.decode(self.recorded.content)
        assert left == 0
        assert nodes_of(state) == self.model.nodes
        assert state.domains == {1: None, 2: None}
        for client in self.clients:
            client.reset()
        assert not self.store.watches.at("/")
        assert [domain.transactions + domain.watches for domain in self.store.domains.values()] == [0, 0, 0]


TestStores = Stores.TestCase
TestStores.settings = settings(stateful_step_count=30, deadline=None)

FEW = ("/a", "/a/b", "/a/b/c", "/a/d")
FEW_OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["read", "directory", "make", "remove", "remove"]), st.sampled_from(FEW)),
    st.tuples(st.just("write"), st.sampled_from(FEW), st.sampled_from([b"1", b"2"])),
    st.tuples(st.just("set_permissions"), st.sampled_from(FEW), PERMISSIONS),
)
BY_WHOM = st.lists(st.tuples(st.sampled_from((0, 0, 1)), FEW_OPERATIONS), max_size=4)


def interleaved(
    before: list[tuple[int, Operation]], who: int, within: list[Operation], meanwhile: list[tuple[int, Operation]]
) -> None:
    """A transaction, and what others do until it ends."""
    store, model = Store(lambda: 0.0), Model()
    store.introduce(1)
    clients = [Client(store, 0), Client(store, 1)]
    for domid, operation in before:
        assert done(clients[domid], operation, 0) == model.do(domid, *operation)
    number = clients[who].begin()
    log = [(operation, done(clients[who], operation, number)) for operation in within]
    model.written = set()
    for domid, operation in meanwhile:
        assert done(clients[domid], operation, 0) == model.do(domid, *operation)
    if not ended(clients[who], number, commit=True):
        assert has_reason(log, model.written)
    else:
        assert [model.do(who, *operation) for operation, _ in log] == [result for _, result in log]
    assert nodes_of(store) == model.nodes
    assert store.check()


PARTS = (BY_WHOM, st.sampled_from((0, 1)), st.lists(FEW_OPERATIONS, max_size=3), BY_WHOM)


@given(*PARTS)
def test_a_transaction_is_as_if_it_happened_at_its_end_or_not_at_all(
    before: list[tuple[int, Operation]], who: int, within: list[Operation], meanwhile: list[tuple[int, Operation]]
) -> None:
    interleaved(before, who, within, meanwhile)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(*PARTS)
def test_many_transactions(
    before: list[tuple[int, Operation]], who: int, within: list[Operation], meanwhile: list[tuple[int, Operation]]
) -> None:
    interleaved(before, who, within, meanwhile)


@pytest.mark.slow
def test_many_stores() -> None:
    run_state_machine_as_test(Stores, settings=settings(max_examples=300, stateful_step_count=60, deadline=None))
