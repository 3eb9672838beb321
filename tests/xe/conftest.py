"""One simulated host for the tests of a module, and a machine that each may use up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.harness import InProcessHost, in_process
from tests.xe.terminal import printed, raw


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessHost]:
    directory: Path = tmp_path_factory.mktemp("host")
    with in_process(directory) as running:
        yield running


@pytest.fixture
def machine(host: InProcessHost) -> Iterator[str]:
    """The uuid of a halted machine with a disk."""
    uuid = printed(host, "vm-install", "template=Tiny Linux", "new-name-label=mine").strip()
    yield uuid
    raw(host, "vm-uninstall", f"uuid={uuid}", "--force")
