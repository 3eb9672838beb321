"""The table of faults in the package's docstring, the rows, and the reading of values."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.hypervisor import sim
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.sim.faults import FAULTS, KINDS, VERBS, ValueKind, parse_faults
from tests.sampling import each


def test_the_docstring_has_exactly_the_rows() -> None:
    assert sim.__doc__ is not None
    written = re.findall(r"^\| `sim:(\S+?)`\s*\| (.+?)\s*\| (.+?) \|$", sim.__doc__, re.MULTILINE)
    assert written == [(row.key, row.kind.value, row.meaning) for row in FAULTS]
    listed = re.search(r"`<verb>` is one of (.*?)\.", sim.__doc__, re.DOTALL)
    assert listed is not None
    assert tuple(re.split(r",\s+", listed[1])) == VERBS


def test_keys_are_read_with_and_without_the_prefix() -> None:
    faults = parse_faults({"sim:delay-start": "1.5", "fail-save": "tape full", "sim:step": "True", "sim:cpu-load": "1"})
    assert faults.number("delay-start") == 1.5
    assert faults.texts == {"fail-save": "tape full"}
    assert faults.flags == {"step"}
    assert faults.after("crash-after") is None


@pytest.mark.parametrize("key", each(4, sorted(key for key, kind in KINDS.items() if kind is not ValueKind.TEXT)))
@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "0x10"])
def test_values_that_cannot_be_read_are_refused(key: str, value: str) -> None:
    with pytest.raises(HypervisorError, match=key):
        parse_faults({key: value})


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(HypervisorError, match="fail-strat"):
        parse_faults({"sim:fail-strat": "x"})


@given(st.dictionaries(st.one_of(st.sampled_from(sorted(KINDS)), st.text(max_size=5)), st.text(max_size=8), max_size=4))
def test_whatever_is_asked_of_the_simulator(settings: dict[str, str]) -> None:
    try:
        found = parse_faults(settings)
    except HypervisorError:
        return
    assert all(0 <= number < math.inf for number in found.numbers.values())
