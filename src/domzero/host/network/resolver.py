"""The host's list of name servers, resolv.conf(5), put together from what each bridge contributes.

A contribution is a file in a directory of ours, named after its bridge: written by the backend for fixed servers, and
by the DHCP client's script for those of a lease. As long as there is any, the list is ours; then what was there before
is put back. A list that is a symbolic link is another program's and stays as it is.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from domzero.host.network import files
from domzero.host.network.protocol import NetworkError

log = logging.getLogger(__name__)

MARK = "# made by domzero of what its networks say; the list before is kept and comes back"
BEFORE = "before"
LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}", re.ASCII)
SERVERS = 8


class Resolver:
    """`path` is the list; None: it is nobody's business. `directory` is where the contributions are."""

    def __init__(self, path: Path | None, directory: Path) -> None:
        self.path = path
        self.directory = directory

    def contribute(self, bridge: str, servers: Iterable[str], domain: str = "") -> None:
        """What a bridge says from now on; no servers: nothing. What is no address is left out. Blocking."""
        if self.path is None:
            return
        known = [server for server in servers if _is_address(server)]
        with self._locked():
            contribution = self.directory / f"{bridge}.conf"
            if known:
                search = f"search {domain}\n" if is_domain(domain) else ""
                files.write(contribution, search + "".join(f"nameserver {server}\n" for server in known[:SERVERS]))
            elif contribution.exists():
                files.remove(contribution)
            else:
                return
            self._compose(self.path)

    def bridges(self) -> frozenset[str]:
        """Who contributes."""
        return frozenset(path.stem for path in self.directory.glob("*.conf")) if self.path else frozenset()

    def servers(self, bridge: str) -> tuple[str, ...]:
        """What a bridge contributes."""
        text = files.read(self.directory / f"{bridge}.conf") or ""
        return tuple(words[1] for line in text.splitlines() if (words := line.split())[:1] == ["nameserver"])

    def _compose(self, path: Path) -> None:
        if path.is_symlink():
            log.warning("%s is a link, thus another program's: the name servers of our networks are not in it", path)
            return
        present, before = files.read(path), self.directory / BEFORE
        ours = present is not None and present.startswith(MARK)
        lines = [line for name in sorted(self.bridges()) for line in self._lines(name)]
        if lines:
            if not ours and present is not None:
                files.write(before, present)
            _replace(path, "\n".join([MARK, *dict.fromkeys(lines), ""]))
        elif ours:
            kept = files.read(before)
            _replace(path, kept if kept is not None else "")
            files.remove(before)

    def _lines(self, bridge: str) -> list[str]:
        return (files.read(self.directory / f"{bridge}.conf") or "").splitlines()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Backend and script may come at the same time."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NetworkError(f"{self.directory} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def is_domain(text: str) -> bool:
    """Whether it can be a domain's name (RFC 1035, with underscores)."""
    return len(text) < 254 and all(LABEL.fullmatch(label) for label in text.removesuffix(".").split("."))


def _replace(path: Path, text: str) -> None:
    """At once if that can be; in place where the file is a mount, as in containers."""
    try:
        files.write(path, text, mode=0o644)
    except NetworkError:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise NetworkError(f"{path} cannot be written: {error.strerror}") from error


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
