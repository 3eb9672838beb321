"""The order of memory limits and virtual processors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.engine.errors import ApiError
from domzero.toolstack.vm.memory_constraints import MemoryLimits, check_limits, check_vcpus, target_within

AMOUNTS = st.integers(-10, 10)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_only_ordered_limits_pass(static_min: int, dynamic_min: int, dynamic_max: int, static_max: int) -> None:
    limits = MemoryLimits(static_min, dynamic_min, dynamic_max, static_max)
    sound = 0 <= static_min <= dynamic_min <= dynamic_max <= static_max and static_max > 0
    if sound:
        assert check_limits(limits) == limits
    else:
        with pytest.raises(ApiError, match="MEMORY_CONSTRAINT_VIOLATION"):
            check_limits(limits)


def test_wrong_order_has_its_own_code() -> None:
    with pytest.raises(ApiError) as caught:
        check_limits(MemoryLimits(1, 3, 2, 4))
    assert caught.value.description == ("MEMORY_CONSTRAINT_VIOLATION_ORDER",)


@pytest.mark.parametrize(("target", "expected"), [(0, 30), (10, 20), (25, 25), (99, 30)])
def test_targets_stay_in_the_dynamic_range(target: int, expected: int) -> None:
    assert target_within(MemoryLimits(10, 20, 30, 40), target) == expected


@pytest.mark.parametrize(
    ("at_startup", "maximum", "field"),
    [(1, 1, None), (2, 4, None), (0, 4, "VCPUs_at_startup"), (5, 4, "VCPUs_at_startup"), (1, 0, "VCPUs_max")],
)
def test_virtual_processors(at_startup: int, maximum: int, field: str | None) -> None:
    if field is None:
        check_vcpus(at_startup, maximum)
        return
    with pytest.raises(ApiError) as caught:
        check_vcpus(at_startup, maximum)
    assert caught.value.params[0] == field
