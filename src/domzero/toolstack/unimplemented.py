"""The explicit messages that nobody implements yet. They answer NOT_IMPLEMENTED with their name.

The list may only shrink: implementing a message means taking its name off, or the daemon refuses to start.
"""

from __future__ import annotations

UNIMPLEMENTED: tuple[str, ...] = ()
