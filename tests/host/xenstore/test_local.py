"""The store as the daemon itself uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from domzero.host.xenstore import clients
from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.local import LocalXenstore
from domzero.host.xenstore.protocol import Access, Permission, Xenstore, XenstoreError
from domzero.host.xenstore.store import Store


@pytest.fixture
def store() -> Store:
    return Store(lambda: 0.0)


async def test_nodes_and_domains(store: Store) -> None:
    local: Xenstore = LocalXenstore(store)
    local.write("/local/domain/4/name", b"guest")
    local.set_permissions("/local/domain/4", (Permission(4, Access.NONE),))
    local.introduce(4)
    local.make("/local/domain/4/data")
    assert local.directory("/local/domain/4") == ("name", "data")
    assert local.exists("/local/domain/4/data")
    assert not local.exists("/local/domain/4/attr")
    assert local.permissions("/local/domain/4/data") == (Permission(4, Access.NONE),)
    assert local.is_introduced(4)
    assert not local.is_introduced(5)
    local.remove("/local/domain/4/data")
    local.shut_down(4)
    local.introduce(5)
    local.set_target(5, 4)
    local.release(4)
    assert not local.is_introduced(4)
    for path in ("", "/ü", "/a b", "/a/"):
        with pytest.raises(XenstoreError, match="EINVAL"):
            local.read(path)


async def test_a_transaction_happens_at_once_or_not_at_all(store: Store) -> None:
    local: Xenstore = LocalXenstore(store)
    with local.transaction() as nodes:
        nodes.write("/a", b"1")
        assert not local.exists("/a")
        assert nodes.read("/a") == b"1"
    assert local.read("/a") == b"1"
    with pytest.raises(ZeroDivisionError):
        change(local, lambda: 1 // 0)
    assert local.read("/a") == b"1"
    with pytest.raises(XenstoreError, match="EAGAIN"):
        change(local, lambda: local.write("/a", b"meanwhile"))
    assert local.read("/a") == b"meanwhile"
    assert store.domains[0].transactions == 0


def change(local: Xenstore, meanwhile: Callable[[], object]) -> None:
    with local.transaction() as nodes:
        nodes.write("/a", nodes.read("/a") + b"2")
        meanwhile()


async def test_a_watch_tells_paths_until_its_block_ends(store: Store) -> None:
    local: Xenstore = LocalXenstore(store)
    async with local.watch("/local/domain") as paths, local.watch("@releaseDomain") as released:
        assert await anext(paths) == "/local/domain"
        assert await anext(released) == "@releaseDomain"
        waiting = asyncio.ensure_future(anext(paths))
        await asyncio.sleep(0)
        for value in (b"1", b"2"):
            local.write("/local/domain/3/data/updated", value)
        local.write("/elsewhere", b"")
        assert await waiting == "/local/domain/3/data/updated"
        store.introduce(3)
        local.release(3)
        assert await anext(released) == "@releaseDomain"
    assert store.watches.at("/local/domain") == ()


async def test_a_watcher_that_is_far_behind_is_told_the_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "HOST_QUEUE", 10)
    local = LocalXenstore(store)
    async with local.watch("/a") as paths:
        for number in range(15):
            Client(store, 0).write(f"/a/{number}", b"")
        told = [await anext(paths) for _ in range(6)]
        assert told[0] == "/a"
        assert "/a/14" in told
