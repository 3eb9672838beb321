"""What asks for alerts: understood, refused, and when it is time to tell."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.toolstack.rrd.perfmon import TEXT_MOST, PerfmonError, Variable, Watch, body, parse, understood

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
