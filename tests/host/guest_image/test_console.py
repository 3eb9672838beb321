"""Reading what the guest says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domzero.host.guest_image import console

LOG = (
    b"[    1.0] noise\r\n\r\ntiny: up kernel=6.1 cpus=2 memory_kib=94788 boot_id=abc\r\n"
    b"\r\ntiny: boots=1\r\n\r\ntiny: ready seconds=1.9\r\ntiny login: \r\ntiny: tick 1\r\n"
    b"\r\ntiny: tick 2\r\n\r\ntiny: tick 3"
)


def test_statements_are_whole_lines_in_order() -> None:
    said = console.statements(LOG)
    assert said[0].startswith("up kernel=6.1 ")
    assert said[1:] == ["boots=1", "ready seconds=1.9", "tick 1", "tick 2"]


def test_values_ticks_and_readiness() -> None:
    assert console.values(LOG, "boots") == ["1"]
    assert console.values(LOG, "cpus") == ["2"]
    assert console.ticks(LOG) == [1, 2]
    assert console.is_ready(LOG)
    assert not console.is_ready(LOG.partition(b"tiny: ready")[0])


@given(st.binary(max_size=400))
def test_a_hostile_guest_is_read_without_harm(log: bytes) -> None:
    assert isinstance(console.statements(log + b"\n"), list)
    assert all(tick >= 0 for tick in console.ticks(b"tiny: tick " + log + b"\n"))
