"""A screen that nobody sees (Xvfb), and a remote-desktop client (xfreerdp) that shows on it what it gets."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 800, 600
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Screen:
    """An X server's screen, which it keeps in a file as xwd(1) writes them."""

    display: str
    file: Path

    def picture(self) -> Image.Image:
        """What is on it now (X11/XWDFile.h: the header is 25 big-endian numbers, then come name, colours, pixels)."""
        content = self.file.read_bytes()
        header = struct.unpack_from(">25I", content)
        length, width, height, line, colours = header[0], header[4], header[5], header[12], header[19]
        pixels = content[length + 12 * colours :][: line * height]
        return Image.frombytes("RGB", (width, height), pixels, "raw", "BGRX", line)

    def share(self, colour: Colour) -> float:
        """How much of it has this colour, from 0 to 1. Ways of sending a picture may lose a little of it."""
        counted = self.picture().getcolors(WIDTH * HEIGHT) or []
        alike = sum(count for count, pixel in counted if isinstance(pixel, tuple) and _are_alike(pixel, colour))
        return alike / (WIDTH * HEIGHT)


def _are_alike(pixel: tuple[int, ...], colour: Colour) -> bool:
    return all(abs(one - other) <= 8 for one, other in zip(pixel, colour, strict=True))


@contextmanager
def screen(directory: Path) -> Iterator[Screen]:
    """A screen with nothing on it, of 24 bits a pixel."""
    geometry = f"{WIDTH}x{HEIGHT}x24"
    argv = ["Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", geometry, "-fbdir", str(directory)]
    with (
        (directory / "xvfb.log").open("wb") as log,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL) as server,
    ):
        assert server.stdout is not None
        try:
            number = server.stdout.readline().decode().strip()
            assert number, (directory / "xvfb.log").read_text()
            yield Screen(f":{number}", directory / "Xvfb_screen0")
        finally:
            server.terminate()


@dataclass
class Viewer:
    """A client that runs, and what it logs."""

    process: subprocess.Popen[bytes]
    log: Path

    def shows(self, screen: Screen, colour: Colour, seconds: float) -> float:
        """Wait until most of the screen has a colour; how long that took."""
        began = time.monotonic()
        while (share := screen.share(colour)) < 0.9:
            problem = f"{share:.0%} of the screen is as it should be; {self.log.read_text()[-3000:]}"
            assert self.process.poll() is None, problem
            assert time.monotonic() - began < seconds, problem
            time.sleep(0.5)
        return time.monotonic() - began


@contextmanager
def viewer(screen: Screen, address: str, user: str, password: str, directory: Path) -> Iterator[Viewer]:
    """A client that logs in at an address and shows the desktop on all of the screen. The password goes over a pipe."""
    argv = [
        "xfreerdp", f"/v:{address}:3389", f"/u:{user}", "/from-stdin:force", "/cert:ignore", "/bpp:32",
        f"/size:{WIDTH}x{HEIGHT}", "-decorations", "/timeout:60000",
    ]  # fmt: skip
    log = directory / "xfreerdp.log"
    environment = {**os.environ, "DISPLAY": screen.display, "HOME": str(directory)}
    with (
        log.open("wb") as output,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment) as process,
    ):
        assert process.stdin is not None
        try:
            process.stdin.write(f"{password}\n".encode())
            process.stdin.close()
            yield Viewer(process, log)
        finally:
            process.terminate()
