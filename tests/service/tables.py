"""The tables of the documents that come from the code. `python -m tests.service.tables` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from domzero.host.hypervisor.sim.faults import FAULTS, PREFIX, VERBS
from domzero.host.storage import sim as storage
from domzero.host.storage import sim_faults
from domzero.settings import documentation
from tests.house.sources import ROOT

PLACE = re.compile(r"(<!-- table: ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def faults() -> str:
    """What `other_config` of a machine can ask for."""
    rows = [f"| `{PREFIX}{row.key}` | {row.kind.value} | {row.meaning} |" for row in FAULTS]
    return _table(rows) + _verbs(VERBS)


def storage_faults() -> str:
    """What `device_config` of a repository can ask for: the rows of the driver's docstring."""
    lines = [line for line in (storage.__doc__ or "").splitlines() if line.startswith("| `")]
    return _table([re.sub(r" {2,}", " ", line) for line in lines]) + _verbs(sim_faults.VERBS)


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": documentation, "faults": faults, "storage faults": storage_faults,
}  # fmt: skip


def refreshed(text: str) -> str:
    """A document with the tables of today's code."""
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[4], text)


def _table(rows: list[str]) -> str:
    return "\n".join(["| key | value | what it does |", "|---|---|---|", *rows]) + "\n"


def _verbs(verbs: tuple[str, ...]) -> str:
    return f"\n`<verb>` is one of {', '.join(f'`{verb}`' for verb in verbs)}.\n"


def main() -> None:
    """Rewrite every document that has such a table."""
    for document in ROOT.glob("docs/*.md"):
        text = document.read_text()
        if refreshed(text) != text:
            document.write_text(refreshed(text))


if __name__ == "__main__":
    main()
