"""What is longer than the house allows, with its length. The lists may only shrink."""

from __future__ import annotations

LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}
