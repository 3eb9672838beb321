"""A store as a plain dictionary from paths to values and permissions: slow, and plain enough to be seen to be right."""

from __future__ import annotations

from dataclasses import dataclass, field

from domzero.wire.xenstore import Access, Permission, Permissions, XenstoreError

Nodes = dict[str, tuple[bytes, Permissions]]

EMPTY: Nodes = {"/": (b"", (Permission(0, Access.NONE),))}


def above(path: str) -> str:
    return path.rsplit("/", 1)[0] or "/"


def is_within(path: str, top: str) -> bool:
    """Whether a path is another or beneath it."""
    return path == top or path.startswith(top.rstrip("/") + "/")


def may(domid: int, permissions: Permissions, need: Access) -> bool:
    owner = permissions[0]
    if domid in (0, owner.domid):
        return True
    named = [entry.access for entry in permissions[1:] if entry.domid == domid]
    return bool((named[0] if named else owner.access) & need)


@dataclass
class Model:
    """One tree, and which of its paths were written since this was asked last."""

    nodes: Nodes = field(default_factory=lambda: dict(EMPTY))
    written: set[str] = field(default_factory=set)

    def do(self, domid: int, name: str, *arguments: object) -> object:
        """An operation's result, or the name of its error; nothing has changed then."""
        try:
            return getattr(self, name)(domid, *arguments)
        except XenstoreError as error:
            return error.code

    def check(self, domid: int, path: str, need: Access) -> None:
        there = path
        while there not in self.nodes:
            there = above(there)
        if not may(domid, self.nodes[there][1], need):
            raise XenstoreError("EACCES")
        if there != path:
            raise XenstoreError("ENOENT")

    def read(self, domid: int, path: str) -> bytes:
        self.check(domid, path, Access.READ)
        return self.nodes[path][0]

    def directory(self, domid: int, path: str) -> list[str]:
        self.check(domid, path, Access.READ)
        return sorted(node.rsplit("/", 1)[1] for node in self.nodes if node != "/" and above(node) == path)

    def permissions(self, domid: int, path: str) -> Permissions:
        self.check(domid, path, Access.READ)
        return self.nodes[path][1]

    def write(self, domid: int, path: str, value: bytes) -> None:
        self.make(domid, path)
        self.nodes[path] = (value, self.nodes[path][1])
        self.written.add(path)

    def make(self, domid: int, path: str) -> None:
        try:
            self.check(domid, path, Access.WRITE)
        except XenstoreError as error:
            if error.code != "ENOENT":
                raise
        if path not in self.nodes:
            if above(path) not in self.nodes:
                self.make(domid, above(path))
            permissions = self.nodes[above(path)][1]
            if domid:
                permissions = (Permission(domid, permissions[0].access), *permissions[1:])
            self.nodes[path] = (b"", permissions)
            self.written.add(path)

    def remove(self, domid: int, path: str) -> None:
        if path == "/":
            raise XenstoreError("EINVAL")
        try:
            self.check(domid, path, Access.WRITE)
        except XenstoreError as error:
            if error.code == "ENOENT" and above(path) in self.nodes:
                return
            raise
        for node in [node for node in self.nodes if is_within(node, path)]:
            del self.nodes[node]
            self.written.add(node)

    def set_permissions(self, domid: int, path: str, permissions: Permissions) -> None:
        self.check(domid, path, Access.WRITE)
        owner = self.nodes[path][1][0].domid
        if domid not in (0, owner):
            raise XenstoreError("EACCES")
        if domid and permissions[0].domid != owner:
            raise XenstoreError("EPERM")
        self.nodes[path] = (self.nodes[path][0], permissions)
        self.written.add(path)
