"""Letters as pixels: a monospaced font of this machine where it has one, else the one that Pillow brings along."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

WIDTH, HEIGHT = 8, 16
FONT = "DejaVuSansMono.ttf"
FONT_SIZE = 13
THRESHOLD = 110
"""Of 255: how much of a pixel ink must cover. The picture has no shades."""


@lru_cache(maxsize=1)
def _font() -> Any:
    # A large library that a host without text consoles on screens does without.
    from PIL import ImageFont

    try:
        return ImageFont.truetype(FONT, FONT_SIZE)
    except OSError:
        return ImageFont.load_default_imagefont()


@lru_cache(maxsize=2048)
def glyph(character: str) -> tuple[bytes, ...]:
    """A character's lines from top to bottom: a byte for each pixel, 1 where there is ink."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (WIDTH, HEIGHT))
    try:
        ImageDraw.Draw(image).text((0, 0), character, fill=255, font=_font())
    except UnicodeEncodeError:  # Pillow's own font has Latin-1 only
        return glyph("?")
    pixels = image.tobytes()
    inked = bytes(value > THRESHOLD for value in pixels)
    return tuple(inked[at : at + WIDTH] for at in range(0, WIDTH * HEIGHT, WIDTH))
