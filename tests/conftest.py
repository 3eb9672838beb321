"""What holds for all tests: how much hypothesis tries, what the garbage collector leaves alone, what the tests cost."""

from __future__ import annotations

import gc

import hypothesis

pytest_plugins = ["tests.cost"]

hypothesis.settings.register_profile("fast", max_examples=20)
"""What `script/test fast` asks for; a test that names a number of its own keeps it."""


def pytest_collection_finish() -> None:
    """Most objects live to the end from here on, and hosts of tests are many objects, made and dropped at once.

    With the interpreter's own thresholds every second host would have the collector walk over all there is.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(7000, 10, 10)
