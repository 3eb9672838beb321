"""Rights, watches and quotas, seen by clients of one store."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.limits import HOST_QUEUE, Limits, TokenBucket
from domzero.host.xenstore.store import Store
from domzero.wire.xenstore import INTRODUCED, RELEASED, Access, Permission, Permissions, XenstoreError

READABLE: Permissions = (Permission(0, Access.READ),)


def rights(*entries: tuple[int, Access]) -> Permissions:
    return tuple(Permission(*entry) for entry in entries)


@pytest.fixture
def store() -> Store:
    """Domains 1 and 2, each with a home of its own."""
    store = Store(lambda: 0.0, Limits(nodes=5, watches=3, transactions=2, transaction_nodes=12, events=4))
    host = Client(store, 0)
    for domid in (1, 2):
        store.introduce(domid)
        host.make(f"/local/domain/{domid}")
        host.set_permissions(f"/local/domain/{domid}", rights((domid, Access.NONE)))
    return store


def refused(code: str, work: Callable[[], object]) -> None:
    with pytest.raises(XenstoreError) as caught:
        work()
    assert caught.value.code == code


def test_a_domain_may_do_what_it_owns_or_is_granted_and_nothing_else(store: Store) -> None:
    host, one, two = Client(store, 0), Client(store, 1), Client(store, 2)
    one.write("/local/domain/1/data", b"mine")
    assert one.permissions("/local/domain/1/data") == rights((1, Access.NONE))
    refused("EACCES", lambda: two.read("/local/domain/1/data"))
    refused("EACCES", lambda: two.read("/local/domain/1/nothing"))
    refused("ENOENT", lambda: one.read("/local/domain/1/nothing"))
    refused("EACCES", lambda: one.listing("/local/domain"))
    refused("EACCES", lambda: one.write("/tool", b""))
    one.set_permissions("/local/domain/1/data", rights((1, Access.NONE), (2, Access.READ)))
    assert two.read("/local/domain/1/data") == b"mine"
    refused("EACCES", lambda: two.write("/local/domain/1/data", b"theirs"))
    refused("EACCES", lambda: two.set_permissions("/local/domain/1/data", rights((2, Access.BOTH))))
    refused("EPERM", lambda: one.set_permissions("/local/domain/1/data", rights((2, Access.BOTH))))
    host.set_permissions("/local/domain/1/data", rights((2, Access.BOTH)))
    two.write("/local/domain/1/data", b"theirs")
    refused("ENOENT", lambda: one.remove("/local/domain/1/gone/deeper"))
    one.remove("/local/domain/1/gone")
    refused("EINVAL", lambda: host.remove("/"))


def test_what_the_host_makes_in_a_guests_place_is_the_guests(store: Store) -> None:
    Client(store, 0).write("/local/domain/1/attr/deep", b"x")
    assert Client(store, 1).permissions("/local/domain/1/attr") == rights((1, Access.NONE))
    assert store.holdings.owned(1) == 3


def test_a_domain_acts_for_its_target(store: Store) -> None:
    one, two = Client(store, 1), Client(store, 2)
    refused("EACCES", lambda: one.write("/local/domain/2/x", b""))
    store.set_target(1, 2)
    one.write("/local/domain/2/x", b"emulated")
    assert two.permissions("/local/domain/2") == rights((2, Access.NONE))
    refused("EACCES", lambda: two.read("/local/domain/1"))
    refused("EINVAL", lambda: store.set_target(1, 0))
    refused("ENOENT", lambda: store.set_target(1, 9))
    store.release(2)
    assert one.caller.target is None


def test_a_removed_tree_conflicts_with_what_was_written_in_it(store: Store) -> None:
    host = Client(store, 0)
    host.write("/a/b/c", b"1")
    remove, write = host.begin(), host.begin()
    host.remove("/a", remove)
    host.write("/a/b/c", b"2", write)
    host.finish(write, commit=True)
    refused("EAGAIN", lambda: host.finish(remove, commit=True))
    assert host.read("/a/b/c") == b"2"
    refused("ENOENT", lambda: host.read("/", remove))


def test_transactions_beside_each_other_do_not_conflict(store: Store) -> None:
    host = Client(store, 0)
    host.make("/a")
    first, second = host.begin(), host.begin()
    host.write("/a/1", b"first", first)
    host.write("/a/2", b"second", second)
    host.finish(first, commit=True)
    host.finish(second, commit=True)
    assert list(host.listing("/a").children) == ["1", "2"]


def test_watchers_hear_of_all_beneath_in_order_and_of_what_they_may_know(store: Store) -> None:
    host, one = Client(store, 0), Client(store, 1)
    host.watch("/local", b"all")
    one.watch("/local/domain/1/data", b"own", relative=True)
    one.watch("/local/domain/2", b"other")
    assert one.take_events() == [("data", b"own"), ("/local/domain/2", b"other")]
    one.write("/local/domain/1/data/a", b"")
    host.write("/local/domain/2/x", b"")
    one.remove("/local/domain/1/data")
    assert host.take_events() == [
        ("/local", b"all"), ("/local/domain/1/data/a", b"all"), ("/local/domain/2/x", b"all"),
        ("/local/domain/1/data", b"all"),
    ]  # fmt: skip
    assert one.take_events() == [("data/a", b"own"), ("data", b"own")]


def test_what_goes_with_its_parent_is_told_to_those_who_watch_exactly_that(store: Store) -> None:
    host = Client(store, 0)
    host.write("/a/b/c", b"")
    host.watch("/a/b", b"b")
    host.watch("/a/b/c/d", b"nothing there")
    host.take_events()
    host.remove("/a")
    assert host.take_events() == [("/a/b", b"b")]


def test_watches_of_those_who_may_not_know_cost_next_to_nothing() -> None:
    """A thousand changes with two thousand watches of others at the root: once there were two million questions."""
    store = Store(lambda: 0.0)
    host = Client(store, 0)
    for domid in range(1, 21):
        store.introduce(domid)
        client = Client(store, domid)
        for number in range(100):
            client.watch("/", b"%d" % number)
        client.take_events()
    begun = time.process_time()
    for number in range(1000):
        host.write("/mine", b"%d" % number)
    assert time.process_time() - begun < 2, "it is some hundredths; asking for each watch takes a dozen seconds"
    assert store.told == 0


def test_losing_the_right_to_read_is_the_last_that_is_heard(store: Store) -> None:
    host, one = Client(store, 0), Client(store, 1)
    host.write("/shared", b"")
    host.set_permissions("/shared", READABLE)
    one.watch("/shared", b"t")
    one.take_events()
    host.set_permissions("/shared", rights((0, Access.NONE)))
    assert one.take_events() == [("/shared", b"t")]
    host.write("/shared", b"secret")
    assert one.take_events() == []


def test_a_transactions_changes_are_told_once_and_only_when_they_happen(store: Store) -> None:
    host = Client(store, 0)
    host.watch("/a", b"t")
    host.take_events()
    number = host.begin()
    host.write("/a/b", b"1", number)
    host.write("/a/b", b"2", number)
    host.write("/a/c", b"", number)
    host.remove("/a/c", number)
    assert host.take_events() == []
    host.finish(number, commit=True)
    assert host.take_events() == [("/a/b", b"t")]
    number = host.begin()
    host.write("/a/b", b"3", number)
    host.finish(number, commit=False)
    assert host.take_events() == []


def test_the_same_event_waits_once_and_is_told_after_the_last_change(store: Store) -> None:
    host = Client(store, 0)
    host.watch("/a", b"t")
    host.take_events()
    for value in (b"1", b"2"):
        host.write("/a/x", value)
        host.write("/a/y", value)
    assert host.take_events() == [("/a/x", b"t"), ("/a/y", b"t")]


def test_domains_coming_and_going_is_told_to_those_who_may_know(store: Store) -> None:
    host, one = Client(store, 0), Client(store, 1)
    for client in (host, one):
        client.watch(INTRODUCED, b"in")
        client.watch(RELEASED, b"out")
        client.take_events()
    store.introduce(7)
    store.shut_down(7)
    store.shut_down(7)
    assert host.take_events() == [(INTRODUCED, b"in"), (RELEASED, b"out")]
    store.set_special(RELEASED, rights((0, Access.NONE), (1, Access.READ)))
    store.release(7)
    assert one.take_events() == [(RELEASED, b"out")]
    refused("ENOENT", lambda: store.release(7))
    refused("EINVAL", lambda: store.release(0))


def test_nothing_of_a_domain_that_went_is_left_for_the_next_of_its_number(store: Store) -> None:
    host, one = Client(store, 0), Client(store, 1)
    one.write("/local/domain/1/a/b", b"")
    host.write("/backend/1", b"")
    host.set_permissions("/backend/1", rights((0, Access.NONE), (1, Access.BOTH), (2, Access.READ)))
    store.set_special(RELEASED, rights((0, Access.NONE), (1, Access.READ)))
    store.release(1)
    refused("ENOENT", lambda: host.read("/local/domain/1"))
    assert host.permissions("/backend/1") == rights((0, Access.NONE), (2, Access.READ))
    assert store.specials[RELEASED] == rights((0, Access.NONE))
    assert store.holdings.owned(1) == 0
    assert store.check()


def test_nodes_are_limited_by_their_owner_also_in_transactions(store: Store) -> None:
    one = Client(store, 1)
    refused("ENOSPC", lambda: one.write("/local/domain/1/a/b/c/d/e", b""))
    first, second = one.begin(), one.begin()
    for number in (first, second):
        one.write(f"/local/domain/1/{number}/a/b", b"", number)
    refused("ENOSPC", lambda: one.write("/local/domain/1/x/y", b"", first))
    one.remove(f"/local/domain/1/{first}/a", first)
    one.write("/local/domain/1/x/y", b"", first)
    one.finish(first, commit=True)
    refused("ENOSPC", lambda: one.finish(second, commit=True))
    assert store.holdings.owned(1) == 4
    Client(store, 2).write("/local/domain/2/others/are/not/hindered", b"")


def test_sizes_and_permissions_are_limited(store: Store) -> None:
    one = Client(store, 1)
    one.write("/local/domain/1/v", bytes(2048))
    refused("ENOSPC", lambda: one.write("/local/domain/1/v", bytes(2049)))
    entries = [(1, Access.NONE), *((domid, Access.READ) for domid in range(2, 7))]
    refused("ENOSPC", lambda: one.set_permissions("/local/domain/1/v", rights(*entries)))
    Client(store, 0).write("/local/domain/1/v", bytes(4000))


def test_watches_are_limited_over_all_connections(store: Store) -> None:
    one, again = Client(store, 1), Client(store, 1)
    one.watch("/a", b"1")
    refused("EEXIST", lambda: one.watch("/a", b"1"))
    again.watch("/a", b"1")
    again.watch("/a", b"2")
    refused("E2BIG", lambda: one.watch("/b", b"1"))
    refused("ENOENT", lambda: one.unwatch("/b", b"1"))
    again.reset()
    one.watch("/b", b"1")


def test_transactions_and_what_they_touch_are_limited(store: Store) -> None:
    one = Client(store, 1)
    number = one.begin()
    one.begin()
    refused("ENOSPC", one.begin)
    # A node that is not there touches the one above it, too.
    missing = [f"/local/domain/1/{name}" for name in range(11)]
    for path in missing:
        refused("ENOENT", lambda path=path: one.read(path, number))  # type: ignore[misc]  # bound for this turn
    refused("ENOSPC", lambda: one.read("/local/domain/1", number))
    one.finish(number, commit=True)
    number = one.begin()
    for value in range(12):
        one.write("/local/domain/1", b"%d" % value, number)
    refused("ENOSPC", lambda: one.write("/local/domain/1", b"again and again", number))
    one.reset()
    one.begin()


def test_events_that_nobody_takes_are_limited(store: Store) -> None:
    overflown: list[None] = []
    one = Client(store, 1, overflow=lambda: overflown.append(None))
    one.watch("/local/domain/1", b"t")
    for name in "abc":
        one.write(f"/local/domain/1/{name}", b"")
    assert not overflown
    one.write("/local/domain/1/d", b"")
    assert overflown
    assert HOST_QUEUE > len(one.take_events()) == 4


def test_tokens_come_at_their_rate_and_are_kept_up_to_a_number() -> None:
    bucket = TokenBucket(rate=10.0, burst=30.0, now=0.0)
    assert bucket.take(20, 0.0) == 0
    assert bucket.take(20, 0.0) == pytest.approx(1.0)
    assert bucket.take(20, 0.5) == pytest.approx(0.5)
    assert bucket.take(20, 1.0) == 0
    assert bucket.take(1, 1.0) == pytest.approx(0.1)
    assert [bucket.take(10, 1000.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(1, 1000.0) > 0
    assert bucket.take(100, 2000.0) == 0
