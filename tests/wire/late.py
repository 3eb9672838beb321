"""An expat that puts everything off to the end.

Versions from 2.6 on, and older ones that distributions mended, put off what comes in small pieces (see
`XML_SetReparseDeferralEnabled` in expat's documentation); how long is theirs to say, so nobody may rely on less.
"""

from __future__ import annotations

from typing import Any


class LateParser:
    """Stands in front of a real parser."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._kept = b""

    def Parse(self, data: bytes, last: bool = False) -> None:
        """As expat's: what was fed is parsed when the last of it is here."""
        self._kept += data
        if last:
            self._parser.Parse(self._kept, True)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._parser, name, value)
