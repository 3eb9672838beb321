"""Performance alerts: what `other_config:perfmon` asks to be told of, and when it is time. Pure.

The form is XenServer's (its administrator's guide, performance alerts):

    <config>
      <variable>
        <name value="cpu_usage"/>
        <alarm_trigger_level value="0.8"/>
      </variable>
    </config>

The text comes from a client. It may not define entities, and its expressions may not be of the kind whose matching
takes for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

KEY = "perfmon"
TEXT_MOST = 16 << 10
VARIABLES_MOST = 64
EXPRESSION_MOST = 128
DEPTH_MOST = 4
SR_PER_HOST = "sr_io_throughput_total_per_host"
"""A repository's variable that stands for one of every host."""
SR_ON_HOST = "sr_io_throughput_total_"
"""What the host's variable is called before the repository's short uuid."""

COMBINE: Mapping[str, Callable[[Sequence[float]], float]] = {
    "average": lambda values: sum(values) / len(values),
    "sum": math.fsum,
    "min": min,
    "max": max,
}
EXPRESSIONS = {
    "cpu_usage": r"cpu[0-9]+$",
    "network_usage": r"(vif_[0-9]+|pif_(?!aggr_)[^_]+)_[rt]x$",
    "disk_usage": r"vbd_[a-z]+_(read|write)$",
}
"""Which sources the usual variables are made of."""

_SAFE = re.compile(r"[A-Za-z0-9_.^$|()\[\]*+?\\-]*")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_UNBOUNDED = re.compile(r"[*+]")
UNBOUNDED_MOST = 2
LENGTHS = 32
"""How many lengths a repetition without an end may try: sources' names are hardly longer."""
WAYS_MOST = 4096
"""In how many ways an expression may try to match a name, which takes a fraction of a millisecond."""
PRIORITY_MOST = 1 << 31


class PerfmonError(ValueError):
    """The text asks for nothing that can be done; says why."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One thing to be told of: when the combined sources are beyond `level` for `period` seconds."""

    name: str
    level: float
    pattern: re.Pattern[str]
    combine: str
    is_maximum: bool = True
    period: float = 60.0
    inhibit: float = 3600.0
    priority: int = 3
    text: str = ""
    """The variable as it was written, for the message."""

    def value(self, latest: Mapping[str, float]) -> float:
        """Put together of the latest values of all sources; NaN when none of them is known."""
        found = [value for name, value in latest.items() if value == value and self.pattern.match(name)]
        return COMBINE[self.combine](found) if found else math.nan

    def is_bad(self, value: float) -> bool:
        """Whether the value is beyond the level; one that is not known is not."""
        return value > self.level if self.is_maximum else value < self.level


@dataclass(slots=True)
class Watch:
    """How long a variable has been bad, and until when nobody wants to hear of it again."""

    bad: float = 0.0
    quiet_until: float = -math.inf

    def check(self, variable: Variable, value: float, now: float, seconds: float) -> bool:
        """Take a value that stands for the last so many seconds; whether it is time to tell."""
        if not variable.is_bad(value):
            self.bad = 0.0
            return False
        self.bad += seconds
        if self.bad < variable.period or now < self.quiet_until:
            return False
        self.quiet_until = now + variable.inhibit
        return True


def on_host(variable: Variable, repository: str) -> Variable:
    """A repository's `SR_PER_HOST` as the variable of a host; the repository's short uuid says which it is."""
    name = SR_ON_HOST + repository
    text = variable.text.replace(quoteattr(SR_PER_HOST), quoteattr(name))
    return replace(variable, name=name, pattern=_expression(name, None), text=text)


def body(variable: Variable, value: float) -> str:
    """The text of the message."""
    return f"value: {value:f}\nconfig:\n{variable.text}"


@lru_cache(maxsize=1024)
def understood(text: str) -> tuple[Variable, ...] | PerfmonError:
    """The variables in a text, or why there are none: a text is asked about again and again."""
    try:
        return parse(text)
    except PerfmonError as error:
        return error


def parse(text: str) -> tuple[Variable, ...]:
    """The variables in a text. Raises `PerfmonError` when one of them makes no sense."""
    if len(text) > TEXT_MOST:
        raise PerfmonError("it is too long")
    found = _read(text)
    if len(found) > VARIABLES_MOST:
        raise PerfmonError("there are too many variables")
    return tuple(_variable(values) for values in found)


@dataclass(slots=True)
class _Reader:
    """Collects the `value` of every element within each `variable`."""

    found: list[dict[str, str]] = field(default_factory=list)
    path: list[str] = field(default_factory=list)

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self.path.append(name)
        if len(self.path) > DEPTH_MOST:
            raise PerfmonError("it is nested too deeply")
        if self.path == ["config", "variable"]:
            self.found.append({})
        elif self.path[:2] == ["config", "variable"] and len(self.path) == 3:
            self.found[-1][name] = attributes.get("value", "")

    def end(self, _: str) -> None:
        self.path.pop()

    def refuse(self, *_: object) -> None:
        raise PerfmonError("it has a document type")


def _read(text: str) -> list[dict[str, str]]:
    reader, parser = _Reader(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = reader.refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise PerfmonError(f"it is no XML: {error}") from error
    return reader.found


def _variable(values: Mapping[str, str]) -> Variable:
    name = values.get("name", "")
    if not name or len(name) > EXPRESSION_MOST:
        raise PerfmonError("a variable has no name, or too long a one")
    sense = values.get("alarm_trigger_sense", "high")
    combine = values.get("consolidation_fn", "average" if name == "cpu_usage" else "sum")
    if sense not in ("high", "low") or combine not in COMBINE:
        raise PerfmonError(f"{name}: {sense} or {combine} is not known")
    lines = "\n".join(f"<{key} value={quoteattr(value)}/>" for key, value in values.items())
    return Variable(
        name,
        _number(values, "alarm_trigger_level", None),
        _expression(name, values.get("rrd_regex")),
        combine,
        sense == "high",
        _number(values, "alarm_trigger_period", 60.0),
        _number(values, "alarm_auto_inhibit_period", 3600.0),
        _priority(values),
        f"<variable>\n{lines}\n</variable>",
    )


def _number(values: Mapping[str, str], key: str, default: float | None) -> float:
    if key not in values and default is not None:
        return default
    try:
        number = float(values[key])
    except (KeyError, ValueError):
        raise PerfmonError(f"{values['name']}: {key} is no number") from None
    if not math.isfinite(number):
        raise PerfmonError(f"{values['name']}: {key} is not finite")
    return number


def _priority(values: Mapping[str, str]) -> int:
    priority = _number(values, "alarm_priority", 3.0)
    if abs(priority) >= PRIORITY_MOST:
        raise PerfmonError(f"{values['name']}: alarm_priority is too large")
    return int(priority)


def _expression(name: str, given: str | None) -> re.Pattern[str]:
    if given is None:
        if name in EXPRESSIONS:
            return re.compile(EXPRESSIONS[name])
        return re.compile(re.escape(name.removeprefix("sr_") if name.startswith(SR_ON_HOST) else name) + "$")
    if (
        len(given) > EXPRESSION_MOST
        or not _SAFE.fullmatch(given)
        or _REPEATED_GROUP.search(given)
        or len(_UNBOUNDED.findall(given)) > UNBOUNDED_MOST
        or ways(given) > WAYS_MOST
    ):
        raise PerfmonError(f"{name}: rrd_regex is too long or not of the simple kind")
    try:
        return re.compile(given)
    except re.error as error:
        raise PerfmonError(f"{name}: rrd_regex: {error}") from error


def ways(expression: str) -> int:
    """In how many ways an expression without repeated groups can try to match, or more than that.

    Python's `re` tries all of them before it says no. What stands in brackets or behind a backslash counts as if it
    were a choice.
    """
    product, bars = 1, [0]
    for letter in expression:
        if letter in "*+":
            product *= LENGTHS
        elif letter == "?":
            product *= 2
        elif letter == "|":
            bars[-1] += 1
        elif letter == "(":
            bars.append(0)
        elif letter == ")" and len(bars) > 1:
            product *= 1 + bars.pop()
    return product * math.prod(1 + open_bars for open_bars in bars)
