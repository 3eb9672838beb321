"""What the operators' document says of the built-in drivers is what they say of themselves."""

from __future__ import annotations

import re
from pathlib import Path

from domzero.host.storage.registry import BUILT_IN, Surroundings
from tests.house.sources import ROOT

ROW = re.compile(r"^\| `(?P<type>\w+)` \| [^|]+ \| (?P<keys>[^|]*) \|[^|]*\|$", re.MULTILINE)


def test_every_driver_and_key_is_in_the_document(tmp_path: Path) -> None:
    types = (ROOT / "docs/storage.md").read_text().partition("## Types")[2].partition("\n## ")[0]
    told = {found["type"]: set(re.findall(r"`(\w+)`", found["keys"])) for found in ROW.finditer(types)}
    surroundings = Surroundings(tmp_path, tmp_path, tmp_path)
    assert told == {type: set(make(surroundings).info().configuration) for type, make in BUILT_IN.items()}
