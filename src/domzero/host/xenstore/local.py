"""The store as the daemon itself uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from domzero.host.xenstore.clients import Client
from domzero.host.xenstore.protocol import Nodes
from domzero.host.xenstore.store import Store
from domzero.wire.xenstore import Permissions, XenstoreError, absolute, special


class LocalNodes:
    """`protocol.Nodes` of one client, within a transaction or (0) outside of any."""

    def __init__(self, client: Client, transaction: int = 0) -> None:
        self._client = client
        self._transaction = transaction

    def read(self, path: str) -> bytes:
        return self._client.read(self._absolute(path), self._transaction)

    def directory(self, path: str) -> tuple[str, ...]:
        return tuple(self._client.listing(self._absolute(path), self._transaction).children)

    def exists(self, path: str) -> bool:
        try:
            self.read(path)
        except XenstoreError as error:
            if error.code != "ENOENT":
                raise
            return False
        return True

    def permissions(self, path: str) -> Permissions:
        return self._client.permissions(self._absolute(path), self._transaction)

    def write(self, path: str, value: bytes) -> None:
        self._client.write(self._absolute(path), value, self._transaction)

    def make(self, path: str) -> None:
        self._client.make(self._absolute(path), self._transaction)

    def remove(self, path: str) -> None:
        self._client.remove(self._absolute(path), self._transaction)

    def set_permissions(self, path: str, permissions: Permissions) -> None:
        self._client.set_permissions(self._absolute(path), permissions, self._transaction)

    def _absolute(self, path: str) -> str:
        # A character that is not ASCII becomes one that no path may have.
        return absolute(path.encode("ascii", "replace"), self._client.home)


class LocalXenstore(LocalNodes):
    """`protocol.Xenstore`, on the store itself."""

    def __init__(self, store: Store) -> None:
        super().__init__(Client(store, 0))
        self._store = store

    @contextmanager
    def transaction(self) -> Iterator[Nodes]:
        number = self._client.begin()
        try:
            yield LocalNodes(self._client, number)
        except BaseException:
            self._client.finish(number, commit=False)
            raise
        self._client.finish(number, commit=True)

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        arrived = asyncio.Event()
        watched = special(path.encode("ascii", "replace")) if path.startswith("@") else self._absolute(path)

        def all_at_once() -> None:
            client.take_events()
            client.deliver(watched, b"")

        client = Client(self._store, 0, wake=arrived.set, overflow=all_at_once)
        client.watch(watched, b"")
        try:
            yield _events(client, arrived)
        finally:
            client.reset()

    def introduce(self, domid: int) -> None:
        self._store.introduce(domid)

    def release(self, domid: int) -> None:
        self._store.release(domid)

    def shut_down(self, domid: int) -> None:
        self._store.shut_down(domid)

    def set_target(self, domid: int, target: int | None) -> None:
        self._store.set_target(domid, target)

    def is_introduced(self, domid: int) -> bool:
        return domid in self._store.domains


async def _events(client: Client, arrived: asyncio.Event) -> AsyncIterator[str]:
    while True:
        await arrived.wait()
        arrived.clear()
        for path, _ in client.take_events():
            yield path
