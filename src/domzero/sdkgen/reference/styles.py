"""How the PDF looks."""

from __future__ import annotations

from reportlab.lib.styles import ParagraphStyle

FONT = "Vera"
BOLD = "Vera-Bold"
"""Bitstream Vera, which reportlab brings along; it is embedded, so that the document looks the same everywhere."""

_TEXT = ParagraphStyle("text", fontName=FONT, fontSize=8.5, leading=12, spaceAfter=4)
_CELL = ParagraphStyle("cell", _TEXT, fontSize=7, leading=9.5, spaceAfter=0, splitLongWords=1)

STYLES = {
    style.name: style
    for style in (
        _TEXT,
        _CELL,
        ParagraphStyle("title", _TEXT, fontName=BOLD, fontSize=24, leading=30, spaceAfter=8),
        ParagraphStyle("chapter", _TEXT, fontName=BOLD, fontSize=18, leading=24, spaceAfter=10),
        ParagraphStyle("class", _TEXT, fontName=BOLD, fontSize=14, leading=18, spaceBefore=18),
        ParagraphStyle("section", _TEXT, fontName=BOLD, fontSize=10, spaceBefore=10),
        ParagraphStyle("message", _TEXT, fontName=BOLD, fontSize=8, leading=11, spaceBefore=10, keepWithNext=1),
        ParagraphStyle("name", _CELL, fontName=BOLD),
        ParagraphStyle("small", _CELL, spaceBefore=2, spaceAfter=4),
        ParagraphStyle("contents", _TEXT, fontName=BOLD, spaceBefore=4),
        ParagraphStyle("contents of a chapter", _TEXT, leftIndent=12, spaceAfter=0),
    )
}

CHAPTERS = ("chapter", "class")
"""The styles of headings in the table of contents, by level."""
