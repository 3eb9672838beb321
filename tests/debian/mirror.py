"""A Debian mirror, looked at before an installation and made whole for it.

Mirrors that keep only what somebody asked for lack packages which the index names. What of the installer itself is
lacking is built from ordinary packages (`udebs`), and named by an index of our own, which nobody signed. What of the
system to be installed is lacking cannot be replaced, and is told before anything is begun.

    python -m tests.debian.mirror RELEASE MIRROR PACKAGE DIRECTORY

unpacks an ordinary package of the release in the directory: this machine's apt knows its own release only.
"""

from __future__ import annotations

import hashlib
import lzma
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.debian.packages import Stanza, index, needed, stanzas, written
from tests.debian.udebs import Builder, CannotBeBuiltError

ARCHITECTURE = "amd64"
UDEBS = f"main/debian-installer/binary-{ARCHITECTURE}/Packages.xz"
ORDINARY = f"main/binary-{ARCHITECTURE}/Packages.xz"
CHOSEN_BY_ITSELF = ("required", "important", "standard")
"""The priorities of what the installer loads without being asked."""
BASE = ("required", "important")
"""The priorities of what debootstrap installs."""
CONNECTIONS = 8
TIMEOUT = 120.0


@dataclass
class Filling:
    """What has to be served besides the mirror's own files."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path below the mirror → content."""
    suite: str = ""
    """The suite that the installer's index is in, empty where the mirror needs no filling."""
    built: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Packages that could not be built, and why."""


@dataclass(frozen=True)
class Mirror:
    """The mirror at an address (without a slash at its end), for one release."""

    address: str
    release: str

    def read(self, path: str) -> bytes:
        """The content of a file. Raises `OSError`."""
        with urllib.request.urlopen(f"{self.address}/{path}", timeout=TIMEOUT) as answer:
            return bytes(answer.read())

    def packages(self, name: str) -> list[Stanza]:
        """The packages of the index of this name below the release. Raises `OSError`."""
        return stanzas(lzma.decompress(self.read(f"dists/{self.release}/{name}")).decode())

    def has(self, package: Stanza) -> bool:
        """Whether the package's file is there."""
        request = urllib.request.Request(f"{self.address}/{package['Filename']}", method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return False

    def lacking(self, packages: Iterable[Stanza]) -> list[Stanza]:
        """Those whose files are not there."""
        asked = list(packages)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return [package for package, there in zip(asked, pool.map(self.has, asked), strict=True) if not there]

    def fetch(self, package: Stanza, place: Path) -> Path:
        """The package's file, checked, in the directory. Raises `OSError`."""
        file = place / Path(package["Filename"]).name
        if not file.exists():
            content = self.read(package["Filename"])
            if hashlib.sha256(content).hexdigest() != package["SHA256"]:
                raise OSError(f"{file.name} is not the one that the index names")
            unfinished = file.with_suffix(".new")
            unfinished.write_bytes(content)
            unfinished.rename(file)
        return file


def loaded(udebs: Iterable[Stanza], kernel: str, present: Collection[str]) -> list[Stanza]:
    """What the installer with this kernel may load, besides what its RAM disk has already."""
    fitting = [udeb for udeb in udebs if udeb.get("Kernel-Version", kernel) == kernel]
    chosen = [udeb["Package"] for udeb in fitting if udeb.get("Priority") in CHOSEN_BY_ITSELF]
    return needed(index(fitting), chosen, present, all_providers=True)


def installed(ordinary: Iterable[Stanza], further: Iterable[str]) -> list[Stanza]:
    """What a system of the base packages and a few others consists of."""
    everything = list(ordinary)
    base = [package["Package"] for package in everything if package.get("Priority") in BASE]
    return needed(index(everything), [*base, *further])


def fill(mirror: Mirror, kernel: str, present: Collection[str], place: Path) -> Filling:
    """What fills the gaps that the installer with this kernel would find, built in `place`. Raises `OSError`."""
    udebs = mirror.packages(UDEBS)
    lacking = mirror.lacking(loaded(udebs, kernel, present))
    if not lacking:
        return Filling()
    filling = Filling(suite=f"{mirror.release}-filled")
    place.mkdir(parents=True, exist_ok=True)
    replaced: dict[str, Stanza] = {}
    with tempfile.TemporaryDirectory(dir=place) as directory:
        work = Path(directory)
        ordinary = index(mirror.packages(ORDINARY))
        builder = Builder(index(udebs), ordinary, lambda package: mirror.fetch(package, work), place, work)
        for udeb in lacking:
            try:
                content = builder.build(udeb).read_bytes()
            except CannotBeBuiltError as error:
                filling.left_out.append(f"{udeb['Package']} ({error})")
                continue
            filling.files[udeb["Filename"]] = content
            filling.built.append(udeb["Package"])
            digest = hashlib.sha256(content).hexdigest()
            replaced[udeb["Package"]] = {**udeb, "Size": str(len(content)), "SHA256": digest}
    gone = {udeb["Package"] for udeb in lacking} - replaced.keys()
    listed = [replaced.get(udeb["Package"], udeb) for udeb in udebs if udeb["Package"] not in gone]
    filling.files |= release_files(mirror.release, filling.suite, listed)
    return filling


def release_files(release: str, suite: str, udebs: Iterable[Stanza]) -> dict[str, bytes]:
    """The index of a suite that has the installer's packages alone, and the file that names it."""
    listed = ({name: value for name, value in udeb.items() if name != "MD5sum"} for udeb in udebs)
    content = lzma.compress(written(listed).encode())
    head = f"Origin: Debian\nSuite: {suite}\nCodename: {release}\nArchitectures: {ARCHITECTURE}\nComponents: main\n"
    row = f" {hashlib.sha256(content).hexdigest()} {len(content)} {UDEBS}\n"
    below = f"dists/{suite}"
    return {f"{below}/{UDEBS}": content, f"{below}/Release": f"{head}SHA256:\n{row}".encode()}


def unpack(mirror: Mirror, name: str, place: Path) -> None:
    """An ordinary package's files, in the directory. Raises `OSError`."""
    packages = index(mirror.packages(ORDINARY)).get(name)
    if not packages:
        raise SystemExit(f"lab: {mirror.release} has no package {name}")
    file = mirror.fetch(packages[0], place)
    subprocess.run(["dpkg-deb", "--extract", str(file), str(place)], check=True)
    file.unlink()


if __name__ == "__main__":
    release, address, wanted, directory = sys.argv[1:]
    unpack(Mirror(address.rstrip("/"), release), wanted, Path(directory))
