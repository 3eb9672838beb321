"""Expecting a documented error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import XenAPI


@contextmanager
def refused(code: str, *params: str) -> Iterator[None]:
    """The block fails with this code, and with these parameters where some are given."""
    with pytest.raises(XenAPI.Failure) as failure:
        yield
    details = failure.value.details
    assert details[0] == code, details
    if params:
        assert tuple(details[1:]) == params
