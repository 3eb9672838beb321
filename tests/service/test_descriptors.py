"""How many descriptors the daemon allows itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = (
    "import resource, domzero.service as service; service.allow_descriptors(); "
    "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
)


@pytest.mark.slow
def test_what_a_shell_gives_is_raised_as_far_as_it_goes() -> None:
    command = ["prlimit", "--nofile=256:4096", sys.executable, "-c", LOOK]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.split() == ["4096", "4096"]
