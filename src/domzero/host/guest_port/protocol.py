"""How a guest's own channel to its host is joined to the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class GuestPorts(Protocol):
    """The ports through which guests reach the store: each is its domain's and never anybody else's."""

    def join(self, domid: int, socket: Path) -> None:
        """Serve a domain, which the store knows already, on a socket that its hypervisor listens on.

        It goes on until `release`; when the guest breaks the protocol its port is closed and opened again.
        """
        ...

    def closing(self, domid: int, socket: Path) -> Callable[[], None]:
        """What to call once the port is found not to be in use: watches and transactions of its last program go.

        The call does nothing when something has come through the port since `closing`: another program has it then.
        """
        ...

    def release(self, domid: int) -> None:
        """The domain has ended: all its ports are let go. Nothing happens where none was joined."""
        ...
