"""A terminal's state and its picture. What a guest writes is hostile: nothing here grows with it."""

from __future__ import annotations

import codecs
import logging
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from domzero.host.console.controls import Controls
from domzero.host.console.glyphs import HEIGHT, WIDTH, glyph
from domzero.wire.rfb import Colour, Rectangle

if TYPE_CHECKING:
    from pyte.screens import Char

log = logging.getLogger(__name__)

COLUMNS, LINES = 80, 24
APPLICATION_CURSOR = 1 << 5
"""DECCKM as pyte counts private modes."""
WHITE, BLACK = 7, 0

_WITHOUT_C1 = dict.fromkeys(range(0x80, 0xA0))
"""Control characters of eight bits, some of which begin what the filter of sequences takes out."""
_NAMES = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")


def _palette() -> tuple[Colour, ...]:
    """xterm's 256 colours: 16 named ones, a cube of 6 by 6 by 6, and greys."""
    dark = [(0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205)]
    bright = [(127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255)]
    levels = (0, 95, 135, 175, 215, 255)
    cube = [(red, green, blue) for red in levels for green in levels for blue in levels]
    greys = [(level, level, level) for level in range(8, 248, 10)]
    return (*dark, (229, 229, 229), *bright, (255, 255, 255), *cube, *greys)


PALETTE = _palette()


class Terminal:
    """`feed` it what the guest writes; `reply` is called with what the terminal itself answers."""

    def __init__(self, reply: Callable[[bytes], None]) -> None:
        # A library that a host whose guests all have screens does without.
        import pyte

        self._controls = Controls()
        self._screen = _screen(COLUMNS, LINES)
        self._screen.write_process_input = lambda text: reply(text.encode())
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_complained = False
        self._shown_cursor = (0, 0)

    @property
    def is_application_cursor(self) -> bool:
        """Whether the guest asked for the other kind of arrow keys."""
        return APPLICATION_CURSOR in self._screen.mode

    def feed(self, data: bytes) -> set[int]:
        """Show what the guest wrote; the numbers of the lines that look different since."""
        text = self._decoder.decode(self._controls.clean(data)).translate(_WITHOUT_C1)
        try:
            self._stream.feed(text)
        except Exception as error:  # noqa: BLE001 - what the library cannot take must not end the console
            # It has begun anew behind what it stumbled over. A guest may do this all the time.
            log.log(logging.DEBUG if self._has_complained else logging.INFO, "a guest's output is dropped: %r", error)
            self._has_complained = True
        changed = set(self._screen.dirty)
        self._screen.dirty.clear()
        cursor = self._screen.cursor
        changed |= {self._shown_cursor[1], cursor.y}
        self._shown_cursor = (cursor.x, cursor.y)
        return {line for line in changed if 0 <= line < LINES}

    def line(self, number: int) -> Rectangle:
        """The picture of a line."""
        row, cursor = self._screen.buffer[number], self._screen.cursor
        at = cursor.x if cursor.y == number and not cursor.hidden else -1
        cells = [_cell(row[column], column == at) for column in range(COLUMNS)]
        pixels = b"".join(b"".join(cell[down] for cell in cells) for down in range(HEIGHT))
        return Rectangle(0, number * HEIGHT, COLUMNS * WIDTH, HEIGHT, pixels)

    def text(self) -> list[str]:
        """The lines as text."""
        return list(self._screen.display)


def _screen(columns: int, lines: int) -> Any:
    import pyte

    class Screen(pyte.Screen):
        """pyte's, but for what grows without an end, takes very long or changes the size."""

        def resize(self, lines: int | None = None, columns: int | None = None) -> None:
            """The screen stays as large as it is."""

        def save_cursor(self) -> None:
            self.savepoints.clear()
            super().save_cursor()

        def alignment_display(self) -> None:
            """A screen full of E, at once: pyte makes each of them anew, and a guest may ask for nothing else."""
            self.dirty.update(range(self.lines))
            full = dict.fromkeys(range(self.columns), self.cursor.attrs._replace(data="E"))
            for line in range(self.lines):
                self.buffer[line].update(full)

        def draw(self, data: str) -> None:
            super().draw("".join(character for character in data if not _joins(character)))

    return Screen(columns, lines)


def _joins(character: str) -> bool:
    """Whether a character is added to the one before: there is no end to that."""
    return character > "~" and (unicodedata.combining(character) > 0 or unicodedata.category(character) in ("Mn", "Cf"))


def _cell(char: Char, is_cursor: bool) -> tuple[bytes, ...]:
    ink = _colour(char.fg, WHITE, bright=char.bold)
    paper = _colour(char.bg, BLACK, bright=False)
    if char.reverse is not is_cursor:
        ink, paper = paper, ink
    return _painted(char.data[:1] or " ", ink, paper, char.underscore)


@lru_cache(maxsize=8192)
def _painted(character: str, ink: int, paper: int, underlined: bool) -> tuple[bytes, ...]:
    colours = bytes.maketrans(b"\0\1", bytes((paper, ink)))
    lines = [line.translate(colours) for line in glyph(character)]
    if underlined:
        lines[-2] = bytes((ink,)) * WIDTH
    return tuple(lines)


@lru_cache(maxsize=1024)
def _colour(name: str, default: int, *, bright: bool) -> int:
    """The place in the palette of a colour that pyte names, or gives as six hexadecimal digits."""
    if name == "default":
        return default + (8 if bright else 0)
    if name.startswith("bright") and name[6:] in _NAMES:
        return _NAMES.index(name[6:]) + 8
    if name in _NAMES:
        return _NAMES.index(name) + (8 if bright else 0)
    try:
        wanted = bytes.fromhex(name)[:3]
    except ValueError:
        return default
    return min(range(256), key=lambda index: sum((a - b) ** 2 for a, b in zip(PALETTE[index], wanted, strict=False)))
