"""The guest that talks: its image is made once, and one machine boots it for all tests of this room."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from domzero.toolstack.xenstore import guests
from tests.talking import image
from tests.talking.guest import TalkingGuest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whoever reads of a failure reads what the guest said, too."""
    report = yield
    guest = getattr(item, "funcargs", {}).get("guest")
    if report.failed and isinstance(guest, TalkingGuest):
        report.sections.append(("the guest", guest.story()))
    return report


@pytest.fixture(scope="session")
def talking_image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The kernel and the ramdisk."""
    if missing := [*image.missing()]:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    return image.make(tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="package")
def talking(talking_image: tuple[Path, Path]) -> Iterator[TalkingGuest]:
    """The machine and its host, which looks more often than usual for guests that have fallen silent."""
    directory = Path(tempfile.mkdtemp(prefix="dz-"))  # a short path: sockets are made in it
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(guests, "LOOKING", 0.2)
        try:
            made = TalkingGuest(directory)
            try:
                made.make(*talking_image)
                yield made
            finally:
                made.end()
        finally:
            shutil.rmtree(directory)


@pytest.fixture
def guest(talking: TalkingGuest) -> TalkingGuest:
    """A guest that is up and has told all about itself."""
    if talking.api.VM.get_power_state(talking.vm) == "Halted":
        talking.api.VM.start(talking.vm, False, False)
        talking.listen()
        talking.wait_until_it_talks()
    return talking
