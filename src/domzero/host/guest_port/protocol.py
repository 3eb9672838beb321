"""How a guest's own channel to its host is joined to the store."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class GuestPorts(Protocol):
    """The ports through which guests reach the store: each is its domain's and never anybody else's."""

    def join(self, domid: int, socket: Path) -> None:
        """Serve a domain, which the store knows already, on a socket that its hypervisor listens on.

        It goes on until `release`; when the guest breaks the protocol its port is closed and opened again.
        """
        ...

    def begin_anew(self, domid: int, socket: Path) -> None:
        """The program in the guest that had a port has let go of it: its watches and transactions go."""
        ...

    def release(self, domid: int) -> None:
        """The domain has ended: all its ports are let go. Nothing happens where none was joined."""
        ...
