"""The reference as one PDF to print or to keep, with a table of contents, an outline, and links."""

from __future__ import annotations

import io
from collections.abc import Iterator
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    LongTable,
    PageBreak,
    PageTemplate,
    Paragraph,
    Spacer,
    TableStyle,
)
from reportlab.platypus.tableofcontents import TableOfContents

from domzero.idl.graph import Graph, Method
from domzero.idl.model import MISSING, RW, Class, Field
from domzero.sdkgen.reference.conventions import CALLS, IMPLICIT, QUALIFIERS, TYPES
from domzero.sdkgen.reference.parts import TITLE, Aged, shown_value
from domzero.sdkgen.reference.styles import BOLD, CHAPTERS, FONT, STYLES
from domzero.sdkgen.reference.tree import printable

MARGIN = 18 * mm
WIDTH = A4[0] - 2 * MARGIN

Story = Iterator[Flowable]


class _Template(BaseDocTemplate):
    """A document whose headings enter the table of contents and the outline."""

    def afterFlowable(self, flowable: Flowable) -> None:
        if not isinstance(flowable, Paragraph) or flowable.style.name not in CHAPTERS:
            return
        level, text = CHAPTERS.index(flowable.style.name), flowable.getPlainText()
        key = f"{flowable.style.name} {text}"
        self.canv.bookmarkPage(key)
        self.canv.addOutlineEntry(text, key, level, closed=level > 0)
        self.notify("TOCEntry", (level, escape(text), self.page, key))


def build_pdf(graph: Graph, version: str) -> bytes:
    """The whole document. The same graph gives the same bytes with the same reportlab."""
    for name, file in ((FONT, "Vera.ttf"), (BOLD, "VeraBd.ttf")):
        pdfmetrics.registerFont(TTFont(name, file))
    pdfmetrics.registerFontFamily(FONT, normal=FONT, bold=BOLD)
    target = io.BytesIO()
    document = _Template(
        target, pagesize=A4, title=TITLE, author=f"domzero {version}", lang="en", invariant=1,
        leftMargin=MARGIN, rightMargin=MARGIN, topMargin=MARGIN, bottomMargin=MARGIN,
    )  # fmt: skip
    frame = Frame(MARGIN, MARGIN, WIDTH, A4[1] - 2 * MARGIN, leftPadding=0, rightPadding=0)
    document.addPageTemplates(PageTemplate("page", [frame], onPage=_number_page))
    document.multiBuild(list(story(graph, version)))
    return target.getvalue()


def _number_page(canvas: Canvas, document: BaseDocTemplate) -> None:
    canvas.setFont(FONT, 7)
    canvas.drawRightString(A4[0] - MARGIN, MARGIN / 2, str(document.page))


def story(graph: Graph, version: str) -> Story:
    """Everything in the document, from the title on."""
    yield _text(TITLE, "title")
    yield _text(f"as domzero {version} serves it")
    yield Spacer(0, 8 * mm)
    contents = TableOfContents(dotsMinLevel=0)
    contents.levelStyles = [STYLES["contents"], STYLES["contents of a chapter"]]
    yield contents
    yield from _conventions()
    yield from _chapter("Roles")
    yield _table((40, 134), [(role.name, role.doc) for role in sorted(graph.roles.values(), key=lambda it: it.rank)])
    yield from _chapter("Classes")
    methods: dict[str, list[Method]] = {name: [] for name in graph.classes}
    for method in graph.methods.values():
        methods[method.cls.name].append(method)
    for name in sorted(graph.classes, key=str.lower):
        yield from _class(graph.classes[name], methods[name])
    yield from _chapter("Enums")
    for name in sorted(graph.enums, key=str.lower):
        yield from _heading(name)
        yield _text(graph.enums[name].doc)
        yield _table((54, 120), list(graph.enums[name].values.items()))
    yield from _chapter("Errors")
    errors = sorted(graph.errors.values(), key=lambda error: error.code)
    yield _table((60, 34, 80), [(error.code, ", ".join(error.params), error.doc) for error in errors])


def _chapter(heading: str) -> Story:
    yield PageBreak()
    yield _text(heading, "chapter")


def _heading(text: str, style: str = "section") -> Story:
    """A heading that does not stand alone at the end of a page."""
    yield CondPageBreak(35 * mm)
    yield _text(text, style)


def _conventions() -> Story:
    yield from _chapter("Conventions")
    for text in CALLS:
        yield _text(text)
    yield from _heading("Types")
    yield _table((30, 144), list(TYPES))
    yield from _heading("Who sets a field")
    yield _table((30, 144), [(kind.value, meaning) for kind, meaning in QUALIFIERS.items()])
    yield from _heading("Implicit messages")
    yield _table((60, 114), [(form, meaning) for _, form, meaning in IMPLICIT])


def _class(cls: Class, methods: list[Method]) -> Story:
    yield from _heading(cls.name, "class")
    yield _text(cls.doc)
    yield _text(_ages(cls), "small")
    if cls.fields:
        yield from _heading("Fields")
        yield _table((44, 36, 34, 60), [_field(field) for field in cls.fields])
    explicit = [method for method in methods if method.message.implicit is None]
    if explicit:
        yield from _heading("Messages")
    for method in explicit:
        yield from _message(method)
    implicit = [method.message.name for method in methods if method.message.implicit is not None]
    if implicit:
        yield from _heading("Implicit messages")
        yield _text(", ".join(implicit), "small")


def _field(field: Field) -> tuple[str, str, str, str]:
    roles = f"read: {field.getter_role}"
    if field.qualifier is RW:
        roles += f"\nset: {field.setter_role}"
    default = "" if field.default is MISSING else f"\nDefault: {shown_value(field.default)}"
    return field.name, str(field.type), f"{field.qualifier.value}\n{roles}\n{_ages(field)}", field.doc + default


def _message(method: Method) -> Story:
    message = method.message
    session = ["session ref session_id"] if message.session else []
    params = ", ".join([*session, *(f"{param.type} {param.name}" for param in message.params)])
    yield _text(f"{message.result} {method.name}({params})", "message")
    yield _text(message.doc)
    if message.params:
        yield _table((44, 130), [
            (param.name, param.doc + ("" if param.default is MISSING else f"\nDefault: {shown_value(param.default)}"))
            for param in message.params
        ])  # fmt: skip
    facts = [f"Least role: {message.least_role}", _ages(message)]
    if message.result_doc:
        facts.insert(0, f"Result: {message.result_doc}")
    if message.errors:
        facts.append(f"Errors: {', '.join(message.errors)}")
    yield _text(" · ".join(facts), "small")


def _ages(thing: Aged) -> str:
    words = [f"since {thing.since}"]
    words += [f"deprecated in {thing.deprecated}"] if thing.deprecated else []
    words += [f"removed in {thing.removed}"] if thing.removed else []
    return ", ".join(words)


def _text(text: str, style: str = "text") -> Paragraph:
    """A paragraph of plain text; its line breaks stay."""
    return Paragraph(escape(printable(text)).replace("\n", "<br/>"), STYLES[style])


def _table(widths: tuple[int, ...], rows: list[tuple[str, ...]]) -> LongTable:
    """Columns of the given widths in millimetres, the first of them names."""
    look = TableStyle([
        ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.lightgrey),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ])  # fmt: skip
    cells = [[_text(text, "name" if at == 0 else "cell") for at, text in enumerate(row)] for row in rows]
    # A row that is higher than a page is split like the table itself.
    return LongTable(cells, [width * mm for width in widths], style=look, splitInRow=1, hAlign="LEFT")
