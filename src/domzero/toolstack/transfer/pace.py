"""How disks are filled, whatever they come out of: what was tuned for one kind of import holds for the others."""

from __future__ import annotations

from typing import Final

AHEAD: Final = 24
"""Pieces that are being written while another one arrives: enough that flushing holds up nothing."""
FLUSH_EVERY: Final = 256 << 20
"""Bytes after which the medium is asked to begin with putting them down, rather than with all of them at the end."""
GRAIN: Final = 64 << 10
"""Bytes of zeros, at such a boundary, that are worth leaving out."""
