"""Rows on their way to disk and back: many at once, alike or not, and rows that are not as this version writes them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from domzero.datamodel.graph import GRAPH as REAL
from domzero.engine.codec import Decoder, Encoder, Misfit
from domzero.idl.model import Durability
from domzero.idl.records import EMPTY_MAP, Layout, Record
from domzero.idl.types import NULL_REF
from tests.engine.toy import GRAPH

CRATE = Layout(GRAPH.classes["crate"])


def crate(**fields: Any) -> Record:
    return Record(CRATE, CRATE.defaults).changed({"uuid": "u", "size": 1, **fields})


def stored(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(Encoder(record.layout)(record))
    return found


CRATES = [
    crate(),
    crate(uuid="v", name_label="a", state="sealed", allowed_operations=("seal", "open"), tags=("x", "")),
    crate(uuid="w", size=-5, fragile=True, temperature=0.5, other_config={"a": "b"}, shelves={1: "one", -2: "two"}),
    crate(uuid="x", current_operations={"OpaqueRef:task": "weigh"}, depot="OpaqueRef:depot"),
]


@pytest.mark.parametrize("together", [CRATES, CRATES[:1], CRATES[:1] * 3, CRATES[1:] * 2])
def test_what_is_written_comes_back(together: list[Record]) -> None:
    decoder = Decoder(GRAPH, CRATE, {})
    assert decoder.decode([stored(record) for record in together]) == ([record.values_ for record in together], [])


@pytest.mark.parametrize("cls", [cls.name for cls in REAL.classes.values() if cls.durability is Durability.DURABLE])
def test_rows_of_every_class_go_the_fast_way(cls: str) -> None:
    """The slow way has the same result, so that nothing else would tell."""
    layout = Layout(REAL.classes[cls])
    written = stored(Record(layout, layout.defaults))
    assert Decoder(REAL, layout, {})._decode_all([written, written]) == [layout.defaults] * 2


def test_one_misfit_does_not_change_its_neighbours() -> None:
    good, spoilt = stored(CRATES[1]), {**stored(CRATES[2]), "state": "ajar", "size": True, "unheard": "of"}
    values, misfits = Decoder(GRAPH, CRATE, {}).decode([good, spoilt, good])
    assert values == [CRATES[1].values_, CRATES[2].changed({"state": "open", "size": 0}).values_, CRATES[1].values_]
    assert misfits == [
        Misfit(1, "state", "'ajar' is not in enum crate_state"),
        Misfit(1, "size", "expected int, found True"),
    ]


@pytest.mark.parametrize("pair", [(1, True), (True, 1), (1, 1.0), (1.0, 1)])
@pytest.mark.parametrize("field", ["size", "fragile"])
def test_equal_values_of_another_type_are_told_apart(field: str, pair: tuple[Any, Any]) -> None:
    rows = [{**stored(crate()), field: value} for value in pair]
    values, misfits = Decoder(GRAPH, CRATE, {}).decode(rows)
    kind = {"size": int, "fragile": bool}[field]
    assert [misfit.row for misfit in misfits] == [at for at, value in enumerate(pair) if type(value) is not kind]
    assert {type(row[CRATE.position[field]]) for row in values} == {kind}


def test_equal_strings_are_one() -> None:
    rows = [stored(crate(name_label=label, depot="OpaqueRef:depot")) for label in ("OpaqueRef:depot", "b")]
    (first, second), _ = Decoder(GRAPH, CRATE, {}).decode(rows)
    label, depot = CRATE.position["name_label"], CRATE.position["depot"]
    assert first[label] is first[depot]
    assert first[depot] is second[depot]
    (empty,), _ = Decoder(GRAPH, CRATE, {}).decode([stored(crate())])
    assert empty[CRATE.position["other_config"]] is EMPTY_MAP
    assert empty[depot] == NULL_REF
