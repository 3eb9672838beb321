"""The container by itself: the standard library's reader and writer agree with ours, and tricks are refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.xva import XvaError
from domzero.wire.xva.tar import (
    END,
    MAX_EXTENSION,
    Member,
    MemberEnd,
    Piece,
    TarReader,
    checked_name,
    encode_header,
    padding,
    pax_fields,
)

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_:.\-]{0,40}(/[A-Za-z0-9_][A-Za-z0-9_:\-]{0,40}){0,2}", fullmatch=True)
FILES = st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def unpacked(data: bytes, size: int = 512) -> dict[str, bytes]:
    reader, found, name = TarReader(), dict[str, bytes](), ""
    for start in range(0, len(data), size):
        for event in reader.feed(data[start : start + size]):
            match event:
                case Member():
                    name, expected = event.name, event.size
                    found[name] = b""
                case Piece():
                    found[name] += event.data
                case MemberEnd():
                    assert len(found[name]) == expected
    reader.finish()
    return found


def packed(files: Iterable[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, content in files:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@given(FILES, FORMATS, st.integers(1, 2000))
def test_what_the_standard_library_packs_is_unpacked(files: dict[str, bytes], format: int, size: int) -> None:
    data = packed(((tarfile.TarInfo(name), content) for name, content in files.items()), format)
    assert unpacked(data, size) == files


@given(FILES)
def test_the_standard_library_unpacks_what_we_pack(files: dict[str, bytes]) -> None:
    parts = [encode_header(name, len(content)) + content + padding(len(content)) for name, content in files.items()]
    with tarfile.open(fileobj=io.BytesIO(b"".join([*parts, END]))) as archive:
        found = {info.name: (info.isreg(), archive.extractfile(info)) for info in archive}
    assert {name: stream.read() for name, (_, stream) in found.items() if stream is not None} == files
    assert all(regular for regular, _ in found.values())


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(format: int) -> None:
    name = "Ref:1/" + "x" * 200
    assert unpacked(packed([(tarfile.TarInfo(name), b"content")], format)) == {name: b"content"}


def test_a_size_of_its_own_in_a_pax_header_counts() -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"size": "3"}
    data = bytearray(packed([(info, b"abc")], tarfile.PAX_FORMAT))
    assert unpacked(bytes(data)) == {"a": b"abc"}


@pytest.mark.parametrize("size", ["-1", "1e3", "", "9" * 30, "99999999999999"])
def test_other_sizes_in_a_pax_header_are_refused(size: str) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"size": size}
    with pytest.raises(XvaError):
        unpacked(packed([(info, b"abc")], tarfile.PAX_FORMAT))


def test_a_path_in_a_pax_header_is_looked_at_too() -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"path": "../../etc/passwd"}
    with pytest.raises(XvaError, match="etc/passwd"):
        unpacked(packed([(info, b"abc")], tarfile.PAX_FORMAT))


def test_global_headers_may_remark_but_not_rename() -> None:
    for headers, accepted in (({"comment": "x"}, True), ({"path": "y"}, False), ({"size": "1"}, False)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=headers) as archive:
            archive.addfile(tarfile.TarInfo("a"))
        if accepted:
            assert unpacked(out.getvalue()) == {"a": b""}
        else:
            with pytest.raises(XvaError, match="global"):
                unpacked(out.getvalue())


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_longer_than_any_name_is_refused_before_it_comes(type: bytes) -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = type, MAX_EXTENSION + 1
    with pytest.raises(XvaError, match="longer than any name"):
        list(TarReader().feed(info.tobuf(tarfile.USTAR_FORMAT)))


def test_names_and_extensions_do_not_pile_up() -> None:
    """One long name after another, none with a member: each takes the place of the one before."""
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 512
    reader, block = TarReader(), info.tobuf(tarfile.USTAR_FORMAT) + b"n" * 512
    for _ in range(1000):
        assert list(reader.feed(block)) == []
    with pytest.raises(XvaError):
        list(reader.feed(encode_header("a", 0)))


@given(st.binary(max_size=300))
def test_pax_headers_of_garbage_are_refused_or_read(content: bytes) -> None:
    try:
        fields = pax_fields(content)
    except XvaError:
        return
    assert sum(len(key) + len(value) + 4 for key, value in fields.items()) <= 4 * len(content)


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "Ref:1", "~"]), max_size=5).map("/".join))
def test_names_that_pass_stay_where_they_are(name: str) -> None:
    try:
        plain = checked_name(name)
    except XvaError:
        return
    assert plain.isascii()
    assert plain.isprintable()
    assert plain == "." or not {"", ".", ".."} & set(plain.split("/"))


@given(st.integers(0, 511), st.binary(min_size=1, max_size=24), st.booleans())
def test_a_header_of_garbage_raises_nothing_else(start: int, garbage: bytes, summed: bool) -> None:
    head = bytearray(encode_header("Ref:1/00000000", 5))
    head[start : start + len(garbage)] = garbage
    head = (head + bytes(512))[:512]
    if summed:
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
    reader = TarReader()
    try:
        for event in reader.feed(bytes(head) + bytes(1024)):
            assert isinstance(event, Piece | MemberEnd) or 0 <= event.size <= 1 << 40
    except XvaError:
        return


def test_what_ustar_cannot_say_is_a_mistake_of_the_caller() -> None:
    for name, size in (("x" * 300, 1), ("a", 8**12), ("ä", 1)):
        with pytest.raises(ValueError, match=r".*"):
            encode_header(name, size)
