"""Which tasks nobody will ask for any more: a pure decision."""

from __future__ import annotations

from collections.abc import Container, Mapping
from datetime import datetime, timedelta

from domzero.engine.clock import moment
from domzero.engine.row import Row
from domzero.idl.types import Ref

UNFINISHED = frozenset({"pending", "cancelling"})
COMPLETED_KEPT = timedelta(seconds=3_900)
PENDING_KEPT = timedelta(seconds=86_400)


def outlived(rows: Mapping[Ref, Row], running: Container[Ref], now: datetime, limit: int) -> set[Ref]:
    """Of all tasks those to be removed: finished ones that are old, unfinished ones that nobody works at and that are
    abandoned, and, where more than `limit` are left, the finished ones that ended first."""
    old, abandoned = moment(now - COMPLETED_KEPT), moment(now - PENDING_KEPT)
    finished = sorted(
        (row.record["finished"], ref) for ref, row in rows.items() if row.record["status"] not in UNFINISHED
    )
    gone = {ref for when, ref in finished if when < old}
    gone |= {
        ref for ref, row in rows.items()
        if row.record["status"] in UNFINISHED and ref not in running and row.record["created"] < abandoned
    }  # fmt: skip
    excess = len(rows) - len(gone) - limit
    rest = [ref for _, ref in finished if ref not in gone]
    return gone.union(rest[: max(0, excess)])
