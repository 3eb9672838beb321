"""What archives say of themselves: `ova.xml` in both forms and the table of checksums; garbage is only refused."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.wire.strict_xml import strict_parser
from domzero.wire.xva import ArchiveVersion, Manifest, XvaError, check_version, decode_manifest
from domzero.wire.xva import table as table_module
from domzero.wire.xva.appliance import MAX_ELEMENTS
from domzero.wire.xva.manifest import MAX_VALUES
from domzero.wire.xva.model import Appliance
from domzero.wire.xva.table import TableReader
from tests.wire.late import LateParser
from tests.xva_writer import manifest, xml_value

VERSION = ArchiveVersion("host", "20080301T12:00:00Z", "4.1.0", "XenServer", "1", 1, 9, 2)
APPLIANCE = b'<appliance version="0.1"><vm name="v"><config mem_set="1" vcpus="1"/>%s</vm>%s</appliance>'
TAGS = ["value", "struct", "member", "name", "array", "data", "string", "int", "i4", "appliance", "vm", "vdi", "vbd"]


def tree() -> st.SearchStrategy[bytes]:
    """XML of the right words in the wrong places."""
    leaf = st.sampled_from([b"", b"text", b"1", b"Ref:1", b"version", b"objects", b"&amp;", b"&e;", b"<!-- -->"])
    return st.recursive(
        leaf,
        lambda inner: st.builds(
            lambda tag, content: b"<%s>%s</%s>" % (tag.encode(), b"".join(content), tag.encode()),
            st.sampled_from(TAGS),
            st.lists(inner, max_size=4),
        ),
        max_leaves=20,
    )


def refused(xml: bytes) -> bool:
    try:
        decode_manifest(xml)
    except XvaError:
        return True
    return False


@given(st.binary(max_size=300))
def test_garbage_is_refused(xml: bytes) -> None:
    assert refused(xml)


@given(tree())
def test_words_in_the_wrong_places_raise_nothing_else(xml: bytes) -> None:
    assert refused(xml) or xml.startswith(b"<appliance")


@given(tree(), st.sampled_from(["version", "objects", "both"]))
def test_nearly_right_descriptions_raise_nothing_else(inner: bytes, place: str) -> None:
    right = manifest([("VM", "Ref:1", {})])
    cut = {"version": right.index(b"<name>hostname"), "objects": right.index(b"<data>") + 6, "both": 0}[place]
    refused(right[:cut] + inner + right[cut:])


@given(st.dictionaries(st.sampled_from(["class", "id", "snapshot"]), st.integers() | st.text("Ref:019") | st.none()))
def test_objects_of_the_wrong_shape_are_refused(item: dict[str, Any]) -> None:
    if all(isinstance(value, int) and abs(value) >= 1 << 31 for value in item.values()):
        item = {}
    small = {key: value if not isinstance(value, int) else value % 1000 for key, value in item.items()}
    assert refused(xml_value({"version": {}, "objects": [small]}))


@pytest.mark.parametrize("value", [[], {}, {"version": {}}, {"objects": []}, {"version": [], "objects": []}])
def test_other_values_are_refused(value: Any) -> None:
    assert refused(xml_value(value))


def test_numbers_may_be_text_and_members_may_be_missing() -> None:
    found = decode_manifest(xml_value({"version": {"export_vsn": "2", "xapi_major": 1, "extra": []}, "objects": []}))
    assert isinstance(found, Manifest)
    assert found.version == ArchiveVersion("", "", "", "", "", 1, 0, 2)


@pytest.mark.parametrize("number", ["two", "-1", "1" * 10, True, -1, 1.5])
def test_other_numbers_are_refused(number: Any) -> None:
    assert refused(xml_value({"version": {"export_vsn": number}, "objects": []}))


def test_a_declaration_and_white_space_are_no_harm() -> None:
    assert not refused(b'<?xml version="1.0" encoding="UTF-8"?>\n' + manifest([]) + b"\n")
    assert refused(b'<?xml version="1.0" encoding="idna"?>' + manifest([]))


def test_the_form_of_an_archive_and_its_author_may_not_be_newer() -> None:
    check_version(VERSION)
    for major, minor, vsn in ((1, 9, 3), (1, 10, 2), (2, 0, 2)):
        with pytest.raises(XvaError) as caught:
            check_version(ArchiveVersion("", "", "", "", "", major, minor, vsn), newest=(1, 9))
        assert caught.value.code == "IMPORT_INCOMPATIBLE_VERSION"
        assert caught.value.parameters == ()


@pytest.mark.slow
def test_many_small_values_cannot_fill_the_memory() -> None:
    """The count is what is bounded: a value of eight bytes takes ten times as much when it is decoded."""
    xml = b"<value><array><data>" + b"<value/>" * (MAX_VALUES + 1) + b"</data></array></value>"
    tracemalloc.start()
    try:
        assert refused(xml)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("vm", "vdis"),
    [
        (b'<vbd device="xvda" vdi="nothing"/>', b""),
        (b"", b'<vdi name="a" size="x" source="file://a"/>'),
        (b"", b'<vdi name="a" size="1" source="file://../a"/>'),
        (b"", b'<vdi name="a" size="1" source="http://a/b"/>'),
        (b"", b'<vdi name="a" size="1"/><vdi name="a" size="1"/>'),
        (b"<a>" * 20 + b"</a>" * 20, b""),
        (b"", b"<vdi/>" * (MAX_ELEMENTS + 1)),
    ],
)
def test_appliances_that_make_no_sense_are_refused(vm: bytes, vdis: bytes) -> None:
    assert refused(APPLIANCE % (vm, vdis))


def test_words_of_an_appliance_that_are_not_known_are_passed_over() -> None:
    found = decode_manifest(b"\n<!-- made by hand --> " + APPLIANCE % (b"<other>text<deeper/></other>", b"<vif/>"))
    assert isinstance(found, Appliance)
    assert (len(found.vms), found.vdis) == (1, ())


@given(tree())
def test_nearly_right_appliances_raise_nothing_else(inner: bytes) -> None:
    refused(APPLIANCE % (inner, b""))
    refused(APPLIANCE % (b"", inner))


@given(st.lists(st.tuples(st.text("Ref:/0123", min_size=1), st.text("0123ABCDEF")), unique_by=lambda row: row[0]))
def test_a_table_is_read_in_pieces_of_any_size(rows: list[tuple[str, str]]) -> None:
    xml = xml_value(dict(rows))
    for size in (1, 7, 1000):
        table = TableReader()
        found = [row for start in range(0, len(xml), size) for row in table.feed(xml[start : start + size])]
        found += table.finish()
        assert found == [(name, text.lower()) for name, text in rows]


@given(st.binary(max_size=300) | tree())
def test_garbage_is_no_table(xml: bytes) -> None:
    table = TableReader()
    try:
        rows = table.feed(xml) + table.finish()
    except XvaError:
        return
    assert not rows or xml.startswith(b"<value>")


def test_rows_of_a_table_that_expat_put_off_come_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "strict_parser", lambda *arguments: LateParser(strict_parser(*arguments)))
    table = TableReader()
    assert table.feed(xml_value({"Ref:1/0": "AB", "Ref:1/1": "CD"})) == ()
    assert table.finish() == (("Ref:1/0", "ab"), ("Ref:1/1", "cd"))


def test_what_is_no_row_of_a_table_is_refused() -> None:
    for xml in (
        b"<!DOCTYPE v [<!ENTITY e 'x'>]><value/>",
        b"<value><struct><member><name>" + b"x" * 1000,
        b"<value><array/></value>",
        b"<value><struct><member><struct>",
    ):
        with pytest.raises(XvaError):
            TableReader().feed(xml)
