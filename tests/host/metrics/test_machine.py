"""The figures of /proc, from this machine and from texts."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from domzero.host.metrics.linux import LinuxFacts, parse_processors
from domzero.host.metrics.protocol import ProcessorTimes, utilisation
from domzero.toolstack.host.description import cpu_info

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
stepping\t: 1
cpu MHz\t\t: 2600.012
physical id\t: 0
flags\t\t: fpu vme

processor\t: 1
vendor_id\t: AuthenticAMD
"""


def test_this_machine() -> None:
    facts = LinuxFacts()
    machine = facts.machine()
    assert machine.hostname == os.uname().nodename
    assert len(machine.processors) == os.cpu_count()
    assert 0 < machine.memory.free <= machine.memory.total
    assert set(facts.processor_times()) == {processor.number for processor in machine.processors}
    assert facts.load_average() >= 0
    usage = facts.own_usage()
    assert 1 << 20 < usage.resident < machine.memory.total
    assert 3 <= usage.open_files < 1 << 20


def test_processors_from_text() -> None:
    first, second = parse_processors(CPUINFO)
    assert (first.vendor, first.speed, first.family, first.flags) == ("AuthenticAMD", 2600, 25, "fpu vme")
    assert (second.number, second.speed, second.model_name) == (1, 0, "")


def test_threads_are_told_from_cores() -> None:
    """Two sockets with a core of two threads each; then processors that say nothing of theirs."""
    places = ((0, 0, 0), (1, 0, 0), (2, 1, 0), (3, 1, 0))
    threads = "\n".join(f"processor : {number}\nphysical id : {at}\ncore id : {core}\n" for number, at, core in places)
    info = cpu_info(tuple(parse_processors(threads)))
    assert (info["cpu_count"], info["socket_count"], info["threads_per_core"]) == ("4", "2", "2")
    info = cpu_info(tuple(parse_processors("processor : 0\n\nprocessor : 1\n")))
    assert (info["cpu_count"], info["socket_count"], info["threads_per_core"]) == ("2", "1", "1")


def test_half_busy() -> None:
    assert utilisation(ProcessorTimes(100, 1000), ProcessorTimes(150, 1100)) == 0.5


@given(st.tuples(*[st.integers(0, 1 << 62)] * 4))
def test_utilisation_is_a_fraction(ticks: tuple[int, int, int, int]) -> None:
    assert 0.0 <= utilisation(ProcessorTimes(*ticks[:2]), ProcessorTimes(*ticks[2:])) <= 1.0
