"""What asks for alerts: understood, refused, and when it is time to tell."""

from __future__ import annotations

import math
import time
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domzero.toolstack.rrd.perfmon import (
    TEXT_MOST,
    WAYS_MOST,
    PerfmonError,
    Variable,
    Watch,
    body,
    parse,
    understood,
    ways,
)

CPU = '<name value="cpu_usage"/><alarm_trigger_level value="0.5"/>'
LATEST = {
    "cpu0": 0.25, "cpu1": 0.75, "cpu_avg": 9.0, "vif_0_rx": 1.0, "vif_1_tx": 2.0, "pif_eth0_rx": 4.0,
    "pif_aggr_rx": 99.0,
    "vbd_xvda_read": 8.0, "vbd_xvda_iops_read": 99.0, "memory": math.nan, "io_throughput_total_01234567": 3.5,
}  # fmt: skip


def one(inside: str) -> Variable:
    (found,) = parse(f"<config><variable>{inside}</variable></config>")
    return found


def test_defaults() -> None:
    found = one(CPU)
    assert (found.name, found.level, found.combine, found.is_maximum) == ("cpu_usage", 0.5, "average", True)
    assert (found.period, found.inhibit, found.priority) == (60, 3600, 3)


@pytest.mark.parametrize(
    ("name", "extra", "value"),
    [
        ("cpu_usage", "", 0.5),
        ("cpu_usage", '<consolidation_fn value="max"/>', 0.75),
        ("network_usage", "", 7.0),
        ("disk_usage", "", 8.0),
        ("cpu_avg", "", 9.0),
        ("sr_io_throughput_total_01234567", "", 3.5),
        ("mine", '<rrd_regex value="vif_[0-9]+_rx"/>', 1.0),
        ("mine", '<rrd_regex value="cpu(0|1)$"/>', 1.0),
        ("memory", "", math.nan),
        ("nothing", "", math.nan),
    ],
)
def test_the_value_of_a_variable(name: str, extra: str, value: float) -> None:
    found = one(f'<name value="{name}"/><alarm_trigger_level value="1"/>{extra}')
    assert found.value(LATEST) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    "text",
    [
        "", "<config>", "nonsense", f"<config><variable>{CPU}</config>",
        "<config><variable/></config>",
        '<config><variable><name value="x"/></variable></config>',
        '<config><variable><name value="x"/><alarm_trigger_level value="much"/></variable></config>',
        '<config><variable><name value="x"/><alarm_trigger_level value="nan"/></variable></config>',
        f'<config><variable>{CPU}<alarm_trigger_sense value="sideways"/></variable></config>',
        f'<config><variable>{CPU}<consolidation_fn value="exec"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="(a+)+$"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="a*b*c*d*"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="(a"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="{".?" * 28}Z"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="{"(|)" * 40}Z"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="{"(.|.)" * 25}Z"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="a*b*c?d?e?"/></variable></config>',
        f'<config><variable>{CPU}<alarm_priority value="1e30"/></variable></config>',
        f'<config><variable>{CPU}<alarm_priority value="-1e19"/></variable></config>',
        f'<config><variable>{CPU}<rrd_regex value="{"a" * 1000}"/></variable></config>',
        '<!DOCTYPE config [<!ENTITY a "aaaa">]><config/>',
        f"<config>{f'<variable>{CPU}</variable>' * 65}</config>",
        "<a><b><c><d><e/></d></c></b></a>",
        f"<config>{' ' * TEXT_MOST}</config>",
    ],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(PerfmonError):
        parse(text)


@given(st.text(max_size=200))
def test_rubbish_is_refused_or_asks_for_nothing(text: str) -> None:
    found = understood(text)
    assert found == () or str(found)


KEYS = ("name", "alarm_trigger_level", "alarm_trigger_period", "alarm_trigger_sense", "alarm_priority", "rrd_regex",
        "consolidation_fn", "alarm_auto_inhibit_period", "odd")  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["cpu_usage", "1", "-1e308", "1e19", "nan", "inf", "0x1", "high", "sum", "min", "vif_[0-9]+"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12),
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=4))
def test_what_is_nearly_right_is_understood_or_refused(variables: list[dict[str, str]]) -> None:
    root = ET.Element("config")
    for values in variables:
        inside = ET.SubElement(root, "variable")
        for key, value in values.items():
            ET.SubElement(inside, key, value=value)
    for found in understood_or_none(ET.tostring(root, "unicode")):
        assert -(1 << 63) <= found.priority < 1 << 63, "what a message can hold"
        assert found.value(LATEST) == pytest.approx(found.value(LATEST), nan_ok=True)
        assert body(found, 1.0).startswith("value: ")


def understood_or_none(text: str) -> tuple[Variable, ...]:
    found = understood(text)
    return () if isinstance(found, PerfmonError) else found


NAME = "vbd_xvda_io_throughput_total_beyond"
PIECES = st.sampled_from([".", "a", "v", "_", ".?", "v?", "|", "(", ")", "(|)", "(.|.)", "[a-z]", ".*", ".+", "$", "^"])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_no_expression_that_is_taken_takes_long(expression: str) -> None:
    root = ET.Element("config")
    inside = ET.SubElement(root, "variable")
    for key, value in (("name", "x"), ("alarm_trigger_level", "1"), ("rrd_regex", expression + "Z")):
        ET.SubElement(inside, key, value=value)
    for found in understood_or_none(ET.tostring(root, "unicode")):
        assert ways(expression) <= WAYS_MOST
        begun = time.thread_time()
        found.value({NAME: 1.0})
        assert time.thread_time() - begun < 0.2


@pytest.mark.parametrize(
    "expression",
    ["vif_[0-9]+_[rt]x", "(vif_[0-9]+|pif_[a-z0-9]+)_[rt]x$", "vbd_(xvda|xvdb|xvdc|xvdd|xvde)_(read|write)$",
     r"^cpu\d+$", ".*_(read|write)_.*", "memory|memory_internal_free"],
)  # fmt: skip
def test_expressions_that_people_write(expression: str) -> None:
    extra = f'<rrd_regex value="{expression}"/>'
    assert one(f'<name value="mine"/><alarm_trigger_level value="1"/>{extra}').pattern.pattern == expression


def test_the_message_names_value_and_variable() -> None:
    text = body(one(CPU + '<odd value="&lt;&amp;&quot;"/>'), 0.8125)
    first, second, xml = text.split("\n", 2)
    assert (first, second) == ("value: 0.812500", "config:")
    root = ET.fromstring(xml)
    assert {child.tag: child.get("value") for child in root} == {
        "name": "cpu_usage", "alarm_trigger_level": "0.5", "odd": '<&"',
    }  # fmt: skip


def test_when_it_is_time() -> None:
    variable = one(CPU + '<alarm_trigger_period value="120"/><alarm_auto_inhibit_period value="300"/>')
    watch = Watch()
    values = [0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, math.nan, 0.9, 0.9]
    told = [minute for minute, value in enumerate(values) if watch.check(variable, value, minute * 60.0, 60.0)]
    assert told == [3, 8]


def test_a_minimum() -> None:
    variable = one('<name value="memory_free_kib"/><alarm_trigger_level value="10"/><alarm_trigger_sense value="low"/>')
    assert [variable.is_bad(value) for value in (9.0, 10.0, 11.0, math.nan)] == [True, False, False, False]
