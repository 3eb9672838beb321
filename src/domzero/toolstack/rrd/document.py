"""How history is written down: rrdtool's dump and xport as XML, and the same as JSON. Text in pieces, without I/O.

Sources: rrddump(1), rrdxport(1), and XenServer's documentation of its metrics. Numbers that JSON has none for are the
strings "NaN", "Infinity" and "-Infinity", which is what today's clients of XenServer read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import orjson

from domzero.toolstack.rrd.archive import HEARTBEAT, Archive
from domzero.toolstack.rrd.columns import RESOLUTIONS, STEP
from domzero.toolstack.rrd.export import Table, functions_at
from domzero.toolstack.rrd.sources import UNKNOWN

XML = '<?xml version="1.0"?>\n'
VERSION = "0003"
XFF = 0.5


def number(value: float) -> str:
    """As rrdtool and XenServer write it."""
    return repr(float(value)).replace("nan", "NaN").replace("inf", "Infinity")


def cells(values: Sequence[float], separator: str) -> str:
    """Many numbers at once."""
    return separator.join(map(repr, values)).replace("nan", "NaN").replace("inf", "Infinity")


def json_cells(values: Sequence[float]) -> str:
    """The same as the inside of a JSON list."""
    text = ",".join(map(repr, values))
    if "n" in text:
        text = text.replace("nan", '"NaN"').replace("-inf", '"-Infinity"').replace(",inf", ',"Infinity"')
        text = '"Infinity"' + text[3:] if text.startswith("inf") else text
    return text


def json_number(value: float) -> float | str:
    """A number as JSON has it."""
    return value if math.isfinite(value) else number(value)


# --- updates


def xport_xml(table: Table) -> Iterator[str]:
    """The table as rrdxport(1) writes it, newest row first."""
    entries = "".join(f"<entry>{escape(name)}</entry>\n" for name in table.legend)
    yield (
        f"{XML}<xport>\n<meta>\n<start>{table.begin}</start>\n<step>{table.step}</step>\n<end>{table.end}</end>\n"
        f"<rows>{max(0, table.last - table.first + 1)}</rows>\n<columns>{len(table.legend)}</columns>\n"
        f"<legend>\n{entries}</legend>\n</meta>\n<data>\n"
    )
    for time, values in table.newest_first():
        inside = f"<v>{cells(values, '</v><v>')}</v>" if values else ""
        yield f"<row><t>{time}</t>{inside}</row>\n"
    yield "</data>\n</xport>\n"


def xport_json(table: Table) -> Iterator[str]:
    """The table as one JSON object of `meta` and `data`, newest row first."""
    meta = {
        "start": table.begin,
        "step": table.step,
        "end": table.end,
        "rows": max(0, table.last - table.first + 1),
        "columns": len(table.legend),
        "legend": list(table.legend),
    }
    yield f'{{"meta":{orjson.dumps(meta).decode()},"data":['
    before = ""
    for time, values in table.newest_first():
        yield f'{before}{{"t":{time},"values":[{json_cells(values)}]}}'
        before = ","
    yield "]}\n"


# --- whole archives


def _recorded(archive: Archive) -> list[int]:
    return [at for at, column in enumerate(archive.columns) if column is not None]


def _history(archive: Archive, level: int, function: str) -> Iterator[tuple[float, ...]]:
    """The values of every row, oldest first."""
    resolution = RESOLUTIONS[level]
    last = archive.steps_done // resolution.steps
    columns = [archive.rows(at, level, function, last - resolution.rows + 1, last) for at in _recorded(archive)]
    return zip(*columns, strict=True)


def _last_update(archive: Archive) -> int:
    return int(archive.last) if archive.last == archive.last else 0


def _state(archive: Archive, at: int) -> tuple[float, float, float]:
    """As `Archive.state`, at the whole second that is said to be the time of the last update."""
    last, value, unknown = archive.state(at)
    passed = archive.last - archive.steps_done * STEP
    share = math.floor(passed) / passed if passed > 0 else 0.0
    return last, value * share, unknown * share


def _pending(archive: Archive, at: int, level: int, function: str) -> tuple[float, int]:
    """Value and number of unknown steps of the row under way (rrdtool's `cdp_prep`)."""
    steps = RESOLUTIONS[level].steps
    passed = archive.steps_done % steps
    column = archive.columns[at]
    if column is None or not passed:
        return (0.0 if function == "AVERAGE" else UNKNOWN), 0
    total, known, low, high = archive.under_way(at, level)
    value = {"AVERAGE": total, "MIN": low, "MAX": high}[function]
    return value if known else UNKNOWN, passed - known


def rrd_xml(archive: Archive) -> Iterator[str]:
    """The archive as `rrdtool restore` reads it."""
    yield f"{XML}<rrd>\n<version>{VERSION}</version>\n<step>{STEP}</step>\n"
    yield f"<lastupdate>{_last_update(archive)}</lastupdate>\n"
    for at in _recorded(archive):
        source = archive.sources[at]
        last, value, unknown = _state(archive, at)
        yield (
            f"<ds>\n<name>{escape(source.name)}</name>\n<type>{source.kind.value}</type>\n"
            f"<minimal_heartbeat>{int(HEARTBEAT)}</minimal_heartbeat>\n"
            f"<min>{number(source.minimum)}</min>\n<max>{number(source.maximum)}</max>\n"
            f"<last_ds>{number(last)}</last_ds>\n<value>{number(value)}</value>\n"
            f"<unknown_sec>{int(unknown)}</unknown_sec>\n</ds>\n"
        )
    for level, resolution in enumerate(RESOLUTIONS):
        for function in functions_at(archive, level):
            yield (
                f"<rra>\n<cf>{function}</cf>\n<pdp_per_row>{resolution.steps}</pdp_per_row>\n"
                f"<params>\n<xff>{XFF}</xff>\n</params>\n<cdp_prep>\n"
            )
            for at in _recorded(archive):
                value, count = _pending(archive, at, level, function)
                yield (
                    "<ds>\n<primary_value>0.0</primary_value>\n<secondary_value>0.0</secondary_value>\n"
                    f"<value>{number(value)}</value>\n<unknown_datapoints>{count}</unknown_datapoints>\n</ds>\n"
                )
            yield "</cdp_prep>\n<database>\n"
            for values in _history(archive, level, function):
                yield f"<row><v>{cells(values, '</v><v>')}</v></row>\n"
            yield "</database>\n</rra>\n"
    yield "</rrd>\n"


def rrd_json(archive: Archive) -> Iterator[str]:
    """The archive as JSON, with the names of the XML."""
    sources = [
        {
            "name": source.name,
            "type": source.kind.value,
            "minimal_heartbeat": HEARTBEAT,
            "min": json_number(source.minimum),
            "max": json_number(source.maximum),
            "last_ds": json_number(_state(archive, at)[0]),
            "value": json_number(_state(archive, at)[1]),
            "unknown_sec": int(_state(archive, at)[2]),
        }
        for at in _recorded(archive)
        for source in (archive.sources[at],)
    ]
    yield (
        f'{{"version":"{VERSION}","step":{STEP},"lastupdate":{_last_update(archive)},'
        f'"ds":{orjson.dumps(sources).decode()},"rra":['
    )
    before = ""
    for level, resolution in enumerate(RESOLUTIONS):
        for function in functions_at(archive, level):
            yield (
                f'{before}{{"cf":"{function}","pdp_per_row":{resolution.steps},"params":{{"xff":{XFF}}},'
                f'"cdp_prep":{_json_pending(archive, level, function)},"database":['
            )
            before = ","
            yield ",".join(f"[{json_cells(values)}]" for values in _history(archive, level, function))
            yield "]}"
    yield "]}\n"


def _json_pending(archive: Archive, level: int, function: str) -> str:
    pending = [_pending(archive, at, level, function) for at in _recorded(archive)]
    rows = [{"value": json_number(value), "unknown_datapoints": count} for value, count in pending]
    return orjson.dumps(rows).decode()
