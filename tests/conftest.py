"""What holds for all tests: how much hypothesis tries, what the garbage collector leaves alone, what the tests cost."""

from __future__ import annotations

import gc

import hypothesis
import pytest

pytest_plugins = ["tests.cost"]

hypothesis.settings.register_profile("fast", max_examples=20)
"""What `script/test fast` asks for; a test that names a number of its own keeps it."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hosts that run real machines share the machine's network, and LVM its locks: these run one after the other."""
    for item in items:
        if item.get_closest_marker("qemu") is not None:
            item.add_marker(pytest.mark.xdist_group("qemu"))
        elif item.path.name.startswith("test_lvm"):
            item.add_marker(pytest.mark.xdist_group("lvm"))


def pytest_collection_finish() -> None:
    """Most objects live to the end from here on, and hosts of tests are many objects, made and dropped at once.

    With the interpreter's own thresholds every second host would have the collector walk over all there is.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(7000, 10, 10)
