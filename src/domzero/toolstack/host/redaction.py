"""Takes secrets out of texts before they leave the host: those that are known, and whatever looks like one.

Known are the values of secret objects, sessions, and what stands under the name of a password in any field. What a
program or a log might have written on its own is recognised by its form. Too much being hidden does no harm here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from json import dumps
from typing import Any
from urllib.parse import quote, quote_plus

from domzero.engine.database import Database
from domzero.engine.sensitive import HIDDEN, is_sensitive, without_keys, without_written_secrets

SHORTEST = 4
"""Characters of the shortest value that is looked for: shorter ones are part of ordinary words."""

LONGEST_LINE = 256 << 10
"""Characters of a line; of a longer one only the beginning is kept."""
QUOTED = 16
PIECE = 128 << 10
"""Characters that are looked at together, a little more or less: a search keeps all other threads waiting."""

FEW = 50
"""Values that are simply searched for."""

_SESSION = re.compile(r"OpaqueRef:[0-9a-f-]{36}")
_QEMU_DATA = re.compile(r"(\bdata=)[^\s,]+")


class Redactor:
    """What was secret when it was made. Used from any thread."""

    def __init__(self, database: Database) -> None:
        self._sessions = frozenset(database.tables.by_class["session"].rows)
        known = {text for value in _secrets(database) for text in _spellings(value)}
        self._known = sorted((text for text in known if len(text) >= SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        return "".join(map(self._of_lines, _pieces(without_keys(text))))

    def _of_lines(self, text: str) -> str:
        for value in self._candidates(text):
            if value in text:
                text = text.replace(value, HIDDEN)
        text = _SESSION.sub(lambda found: HIDDEN if found[0] in self._sessions else found[0], text)
        return _QEMU_DATA.sub(rf"\1{HIDDEN}", without_written_secrets(text))

    def _candidates(self, text: str) -> Iterable[str]:
        """The known values that may be in the text. To search for each of ten thousand would take minutes."""
        if len(self._known) <= FEW:
            return self._known
        there = {text[at : at + SHORTEST] for at in range(len(text) - SHORTEST + 1)}
        return [value for value in self._known if value[:SHORTEST] in there and value[-SHORTEST:] in there]


def _pieces(text: str) -> Iterator[str]:
    """Whole lines, many together."""
    at = 0
    while len(text) - at > PIECE:
        end = text.rfind("\n", at, at + PIECE) + 1
        if not end:
            end = text.find("\n", at + PIECE) + 1 or len(text)
        if end - at <= LONGEST_LINE:
            yield text[at:end]
        else:
            yield f"{text[at : at + QUOTED]} [a line of {end - at} characters]\n"
        at = end
    yield text[at:]


def _spellings(value: str) -> Iterator[str]:
    """A value as it is, each of its lines, and as it stands in addresses and in JSON."""
    for text in (value, *value.splitlines()):
        yield text
        yield quote(text, safe="")
        yield quote_plus(text)
        yield dumps(text)[1:-1]
        yield dumps(text, ensure_ascii=False)[1:-1]


def _secrets(database: Database) -> Iterator[str]:
    for name, table in database.tables.by_class.items():
        for row in table.rows.values():
            if name == "secret":
                yield row.record["value"]
            for field, value in row.record.items():
                yield from _hidden(field, value)


def _hidden(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _hidden(name if is_sensitive(name) else str(key), inner)
    elif isinstance(value, str) and value and is_sensitive(name):
        yield value
