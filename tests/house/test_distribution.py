"""Tests that share what takes long to make, or a lock of the whole machine, run in one worker."""

from __future__ import annotations

import pytest

from tests.distribution import group


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tests/talking/test_a_qemu.py::test_x", "tests/talking/test_b_qemu.py::test_y[1::2]"),
        ("tests/host/storage/test_lvm.py::test_x", "tests/host/storage/test_lvm_killed.py::test_y[a-b]"),
        ("tests/api/test_a.py::test_x", "tests/api/test_a.py::TestThem::test_y[tests/talking/]"),
    ],
)
def test_these_are_together(one: str, other: str) -> None:
    assert group(one) == group(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tests/api/test_a.py::test_x", "tests/api/test_b.py::test_x"),
        ("tests/api/test_a.py::test_x", "tests/wire/test_a.py::test_x"),
    ],
)
def test_these_are_not(one: str, other: str) -> None:
    assert group(one) != group(other)
