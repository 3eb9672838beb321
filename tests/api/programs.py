"""Viewers of consoles that nobody here wrote: vncdotool, TigerVNC's viewer on a screen of its own, curl."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from tests.api.harness import PASSWORD

VNCDO = Path(sys.executable).with_name("vncdo")
TIGER = [shutil.which(name) for name in ("Xvfb", "xtigervncviewer", "import")]
needs_tiger = pytest.mark.skipif(None in TIGER, reason="needs xvfb, tigervnc-viewer and imagemagick")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def vncdo(port: int, *commands: str) -> None:
    """Run the scriptable viewer."""
    command = [str(VNCDO), "-s", f"127.0.0.1::{port}", "--timeout", "60", "--force-caps", *commands]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr


def snapshot(url: str, query: str, file: Path) -> Image.Image:
    """A picture of a screen as curl gets it."""
    subprocess.run(
        ["curl", "-ksS", "--fail", "-u", f"root:{PASSWORD}", "-H", "Accept: image/png", "-o", str(file),
         f"{url}/vncsnapshot?{query}"], check=True, timeout=60,
    )  # fmt: skip
    return opened(file)


def opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def written(image: Image.Image) -> Image.Image:
    """The part that is not black."""
    return image.crop(image.getbbox())


def difference(one: Image.Image, other: Image.Image) -> float:
    """The share of pixels that are not alike: a blinking cursor, or another picture."""
    assert one.size == other.size
    changed = ImageChops.difference(one, other).convert("L").point(lambda level: 255 if level else 0)
    return changed.histogram()[255] / (one.size[0] * one.size[1])


@contextmanager
def x_server(directory: Path) -> Iterator[dict[str, str]]:
    """A screen that nobody sits at; the environment of programs on it."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        try:
            with os.fdopen(reading) as numbers:
                display = f":{numbers.readline().strip()}"
            yield {"PATH": os.environ["PATH"], "HOME": str(directory), "DISPLAY": display, "LC_ALL": "C.UTF-8"}
        finally:
            server.terminate()


@contextmanager
def tiger(port: int, environment: dict[str, str], *options: str) -> Iterator[None]:
    """TigerVNC's viewer on that screen."""
    command = ["xtigervncviewer", "-SecurityTypes=None", "-AlertOnFatalError=0", "-ReconnectOnError=0", *options]
    with subprocess.Popen(
        [*command, f"127.0.0.1::{port}"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as viewer:
        try:
            yield
        finally:
            viewer.terminate()


def wait_until_shown(expected: Callable[[], Image.Image], environment: dict[str, str], file: Path) -> None:
    """Take screenshots until the viewer's window shows the picture, which may still change."""
    deadline = time.monotonic() + 60
    apart = 1.0
    while apart > 0.01:
        assert time.monotonic() < deadline, f"{apart:.1%} of the pixels are others, see {file}"
        subprocess.run(["import", "-window", "root", str(file)], env=environment, check=True, timeout=60)
        seen, wanted = written(opened(file)), written(expected())
        # A cursor that blinks below the last line adds to one of them.
        both = (0, 0, min(seen.width, wanted.width), min(seen.height, wanted.height))
        if both[2] > wanted.width * 0.9 and both[3] > wanted.height * 0.9:
            apart = difference(seen.crop(both), wanted.crop(both))
