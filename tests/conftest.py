"""What holds for all tests: how much hypothesis tries, what the garbage collector leaves alone, what the tests cost."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["tests.cost", "tests.distribution"]

hypothesis.settings.register_profile("fast", max_examples=10)
"""What `script/test fast` asks for; a test that names a number of its own keeps it."""


ACCOUNTS = tuple(Path("/etc", name) for name in ("passwd", "group", "shadow", "hosts"))


@pytest.fixture(autouse=True)
def the_machine_keeps_its_own(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test takes a line from the machine's own files: tests run as root, and a hostile image may name any file.

    Lines may be added meanwhile, by the installation of a package.
    """
    before = request.config.stash[OWN_FILES]
    yield
    for path, size in before.items():
        assert _size(path) >= size, f"{path} lost lines while this test ran"


OWN_FILES: pytest.StashKey[dict[Path, int]] = pytest.StashKey()


def _size(path: Path) -> int:
    """Bytes, but none of a file that is emptied and stretched."""
    try:
        return 0 if path.read_bytes()[:1] == b"\0" else path.stat().st_size
    except OSError:
        return 0


def pytest_configure(config: pytest.Config) -> None:
    """Note what the machine has before any test runs."""
    config.stash[OWN_FILES] = {path: _size(path) for path in ACCOUNTS}


FAST = "not slow and not qemu"
"""What `script/test fast` selects."""
WHOLE = (
    "tests/api/test_backup", "tests/api/test_consoles", "tests/api/test_database_dump", "tests/api/test_host_console",
    "tests/api/test_metrics", "tests/api/test_simulated_guest", "tests/api/test_system_status",
    "tests/api/test_viewers", "tests/guest/test_with", "tests/host/compression", "tests/host/contents",
    "tests/host/xenstore", "tests/toolstack/rrd", "tests/toolstack/services", "tests/toolstack/transfer",
    "tests/toolstack/vm/install", "tests/toolstack/xenstore", "tests/xe/test_transfers",
    "tests/front/test_transfers", "tests/api/test_welcome", "tests/host/test_download", "tests/api/test_audit",
    "tests/host/upload", "tests/host/updates", "tests/house/test_packages", "tests/wire/xva", "tests/wire/test_vhd",
    "tests/host/sim", "tests/api/test_messages", "tests/api/test_reference", "tests/api/test_plugins",
    "tests/api/test_console_fuzz", "tests/api/test_clients", "tests/host/storage/test_hanging",
    "tests/host/storage/test_file_killed", "tests/host/storage/test_file_coalesce", "tests/host/network/test_bridge",
    "tests/toolstack/vm/test_core_dumps", "tests/house/test_tidy", "tests/service/test_users",
    "tests/toolstack/host/test_redaction", "tests/front/test_listening",
)  # fmt: skip
"""Files and rooms whose tests go through whole hosts, tools or much data; the fast part would not be fast with them."""
LEFT_OUT = re.compile(r"^pytestmark = (?:pytest|\[[^\]]*)\.mark\.(?:slow|qemu)\b", re.MULTILINE)
"""How a file says that none of its tests is for the fast part."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fast part does not even import what it would leave out."""
    if config.option.markexpr != FAST:
        return None
    path = collection_path.relative_to(config.rootpath).as_posix()
    if path.startswith(WHOLE):
        return True
    is_file = collection_path.suffix == ".py" and collection_path.is_file()
    return True if is_file and LEFT_OUT.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What goes through whole hosts is slow, whatever it is."""
    for item in items:
        if item.nodeid.startswith(WHOLE):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Most objects live to the end from here on, and hosts of tests are many objects, made and dropped at once.

    With the interpreter's own thresholds every second host would have the collector walk over all there is.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(7000, 10, 10)
