"""A text console as a picture: what it shows, what keys send, and what hostile guests cannot do."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.host.console.controls import LONGEST, Controls
from domzero.host.console.glyphs import HEIGHT, WIDTH
from domzero.host.console.keys import typed
from domzero.host.console.terminal import COLUMNS, LINES, PALETTE, Terminal
from tests.sampling import each


def terminal() -> Terminal:
    return Terminal(lambda _: None)


def colours(shown: Terminal, line: int, column: int) -> set[int]:
    """The colours in a character's cell."""
    pixels = shown.line(line).pixels
    across = COLUMNS * WIDTH
    return {pixels[down * across + column * WIDTH + x] for down in range(HEIGHT) for x in range(WIDTH)}


def test_letters_have_ink() -> None:
    shown = terminal()
    assert shown.feed(b"") == set(range(LINES))
    assert shown.feed(b"\r\nAl\x1b[1;31;44m!\x1b[0m") == {0, 1}
    assert shown.text()[1].rstrip() == "Al!"
    assert colours(shown, 1, 0) == {0, 7}
    assert colours(shown, 1, 2) == {4, 9}, "bright red on blue"
    assert colours(shown, 1, 3) == {7}, "the cursor"
    assert colours(shown, 5, 5) == {0}
    rectangle = shown.line(1)
    assert (rectangle.x, rectangle.y, rectangle.width, rectangle.height) == (0, HEIGHT, COLUMNS * WIDTH, HEIGHT)
    assert len(rectangle.pixels) == rectangle.width * rectangle.height


def test_letters_differ() -> None:
    shown = terminal()
    shown.feed("AB─█é".encode())
    whole = shown.line(0).pixels
    across = COLUMNS * WIDTH
    cells = {b"".join(whole[down * across + column * WIDTH :][:WIDTH] for down in range(HEIGHT)) for column in range(5)}
    assert len(cells) == 5


def test_colours_of_all_kinds() -> None:
    shown = terminal()
    shown.feed(b"\x1b[48;5;196ma\x1b[48;2;0;95;255mb\x1b[0;7mc\x1b[0;4md")
    assert any(PALETTE[index] == (255, 0, 0) for index in colours(shown, 0, 0))
    assert any(PALETTE[index] == (0, 95, 255) for index in colours(shown, 0, 1))
    assert colours(shown, 0, 2) == {0, 7}


def test_what_a_terminal_answers() -> None:
    replies: list[bytes] = []
    Terminal(replies.append).feed(b"ab\x1b[6n\x1b[c")
    assert replies == [b"\x1b[1;3R", b"\x1b[?6c"]


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (b"a\x1b]0;title\x07b", b"ab"),
        (b"a\x1b]0;title\x1b\\b", b"ab"),
        (b"a\x1bPq~~~\x1b\\b\x1b_x\x1b\\c\x1b^y\x1b\\d", b"abcd"),
        (b"a\x1b]broken off\x1b[31mb", b"a\x1b[31mb"),
        (b"\x1b[1;31mx\x1b[0m\x1b(B\x1b7\x1b8\x1b#8\x1bM", b"\x1b[1;31mx\x1b[0m\x1b(B\x1b7\x1b8\x1b#8\x1bM"),
        (b"\x1b[1\n;31mx", b"\n\x1b[1;31mx"),
        (b"\x1b[1\x18x", b"x"),
        (b"\x1b[" + b"1" * LONGEST + b"1mx", b"11mx"),
        (b"\x1b\x1b\x1b[mx", b"\x1b[mx"),
        ("é─".encode(), "é─".encode()),
    ],
)
def test_sequences_without_an_end_are_not_kept(written: bytes, left: bytes) -> None:
    assert Controls().clean(written) == left
    filter = Controls()
    assert b"".join(filter.clean(bytes((byte,))) for byte in written) == left


@pytest.mark.parametrize(
    "written",
    each(
        2,
        [
            b"\x1b7" * 30_000,
            b"e" + "\u0301".encode() * 50_000,
            b"\x1b]0;" + b"x" * 300_000,
            b"\x1b[" + b"1;" * 100_000,
            b"\x1b[\n" + b"1" * 100_000,
            "\u009d".encode() + b"x" * 100_000,
            b"\x1b[?3h\x1b[?3l" * 10,
            b"\x1b[99999999999999999999A\x1b[9999;9999H\x1b[9999L\x1b[9999@x",
        ],
    ),
)
def test_a_guest_cannot_make_it_grow(written: bytes) -> None:
    import pickle

    shown = terminal()
    for at in range(0, len(written), 4096):
        shown.feed(written[at : at + 4096])
    kept = shown._screen
    stored = pickle.dumps((kept.savepoints and len(kept.savepoints), kept.title, sorted(kept.mode), kept.display))
    assert len(kept.savepoints) <= 1
    assert len(stored) < 20_000
    assert (kept.columns, kept.lines) == (COLUMNS, LINES)
    shown.feed(b"\x18\x1b[2J\x1b[HOK")
    assert shown.text()[0].startswith("OK")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["control sequences", "escape sequences", "characters"])
def test_nothing_that_a_guest_writes_takes_long(kind: str) -> None:
    """What is fed at a time (`text_screen.PIECE`) holds up every viewer of the screen for as long as it takes."""
    repeated = {
        "control sequences": [
            b"\x1b[" + parameters + bytes((final,)) + b"a"
            for final in range(0x40, 0x7F)
            for parameters in (b"9999", b"1;9999", b"?9999", b"38;5;300;48;2;9;9;9", b"7;" * 30 + b"7")
        ],
        "escape sequences": [
            b"\x1b" + middle + bytes((final,)) for middle in (b"", b"#", b"(", b"%") for final in range(0x30, 0x7F)
        ],
        "characters": [
            *(bytes((code,)) for code in range(0x20)),
            *(text.encode() for text in ("é", "字", "\U0001f600", "e\u0301", "\x1b[H\x1b[2J", "\x1b[24;80Hx\n")),
        ],
    }[kind]
    longest = {}
    for written in repeated:
        shown = terminal()
        shown.feed(b"x" * COLUMNS * LINES + b"\x1b[12;40H")
        piece = (written * 1024)[:1024]
        begun = time.process_time()
        shown.feed(piece)
        longest[written] = time.process_time() - begun
    assert {written: took for written, took in longest.items() if took > 0.2} == {}


@pytest.mark.slow
def test_memory_stays_the_same_however_much_is_written() -> None:
    source = random.Random(4)
    shown = terminal()
    middle = (
        b"\x1b[",
        b"\x1b]0;",
        b"\x1bP",
        b"\x1b7",
        b"\x1bH",
        b"\x1b#8",
        "e\u0301".encode(),
        b"\x1b[?",
        b"\x1b[38;5;",
    )

    def some(size: int) -> bytes:
        return b"".join(source.choice(middle) + source.randbytes(source.randrange(9)) for _ in range(size // 8))

    def write(size: int) -> None:
        for _ in range(size // 1024):
            for number in shown.feed(some(1024)):
                shown.line(number)

    write(128 << 10)
    tracemalloc.start()
    try:
        write(64 << 10)
        before = tracemalloc.get_traced_memory()[0]
        write(128 << 10)
        assert tracemalloc.get_traced_memory()[0] - before < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_screen_full_of_letters() -> None:
    shown = terminal()
    assert shown.feed(b"\x1b#8") == set(range(LINES))
    assert shown.text() == ["E" * COLUMNS] * LINES


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=30), st.from_regex(rb"\x1b[\[\(#%]?[?0-9;]{0,9}[@-~]")), max_size=30))
def test_rubbish(pieces: list[bytes]) -> None:
    shown = terminal()
    for piece in pieces:
        for number in shown.feed(piece):
            assert len(shown.line(number).pixels) == COLUMNS * WIDTH * HEIGHT


@pytest.mark.parametrize(
    ("symbol", "held", "sent"),
    [
        (0x61, {}, b"a"),
        (0x41, {}, b"A"),
        (0x63, {"control": True}, b"\x03"),
        (0x40, {"control": True}, b"\x00"),
        (0x20, {"control": True}, b"\x00"),
        (0x31, {"control": True}, b"1"),
        (0x78, {"meta": True}, b"\x1bx"),
        (0xFF0D, {}, b"\r"),
        (0xFF08, {}, b"\x7f"),
        (0xFF52, {}, b"\x1b[A"),
        (0xFF52, {"application": True}, b"\x1bOA"),
        (0xFFBE, {}, b"\x1bOP"),
        (0xFFC9, {}, b"\x1b[24~"),
        (0xFFB7, {}, b"7"),
        (0xE9, {}, "é".encode()),
        (0x010020AC, {}, "€".encode()),
        (0xFFE1, {}, b""),
        (0x0100D800, {}, b""),
        (0xFFFFFFFF, {}, b""),
    ],
)
def test_keys(symbol: int, held: dict[str, bool], sent: bytes) -> None:
    assert typed(symbol, **held) == sent
