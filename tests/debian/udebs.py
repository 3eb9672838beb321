"""Packages of Debian's installer ("udebs") that a mirror lacks, built from ordinary packages that it has.

A udeb is a package without documentation that is made from the same source as an ordinary one: the same programs,
libraries and kernel modules, in fewer files. So where a mirror has the ordinary packages only,

* one of kernel modules is built from the kernel's package of the same version, with the modules that the udeb of the
  same name has for another version of the kernel;
* another one is built from the package of its name and version, with the libraries of the same source that have no udeb
  of their own, and without what is only there to be read.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.debian.packages import Index, Stanza, needed, source, written

Fetch = Callable[[Stanza], Path]
"""Where the file of a package is, fetched and checked. Raises `OSError` where there is none."""

SUFFIX = "-udeb"
UNREAD = ("usr/share", "usr/lib/systemd", "usr/include", "boot")
"""Places whose files an installer does not need."""
MODULES = "lib/modules"
NOT_IN_CONTROL = ("Filename", "Size", "MD5sum", "SHA256", "Description-md5")


class CannotBeBuiltError(Exception):
    """The mirror does not have what a udeb would be built from."""


@dataclass
class Builder:
    """Builds udebs in a directory, where those of an earlier time are found again. Another one is for the work."""

    udebs: Index
    ordinary: Index
    fetch: Fetch
    place: Path
    work: Path
    _unpacked: dict[str, Path] = field(default_factory=dict)

    def build(self, udeb: Stanza) -> Path:
        """The package's file. Raises `CannotBeBuiltError`."""
        built = self.place / Path(udeb["Filename"]).name
        if built.exists():
            return built
        root = self.work / "new"
        for origin, path in self._files(udeb):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin / path, root / path, follow_symlinks=False)
        control = {name: value for name, value in udeb.items() if name not in NOT_IN_CONTROL}
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN" / "control").write_text(written([control]).rstrip("\n") + "\n")
        unfinished = self.work / built.name
        _dpkg("--root-owner-group", "-Zxz", "--build", str(root), str(unfinished))
        shutil.rmtree(root)
        return unfinished.rename(built)

    def _files(self, udeb: Stanza) -> list[tuple[Path, Path]]:
        """Where each file is unpacked, and its path below that."""
        if version := udeb.get("Kernel-Version"):
            kernel = self._unpack(self._one(self.ordinary, f"linux-image-{version}", udeb["Version"]))
            model, other = self._model(udeb, version)
            like = {below_modules(path, other) for path in files(model)} - {None}
            return [(kernel, path) for path in files(kernel) if below_modules(path, version) in like]
        roots = [self._unpack(package) for package in self._parts(udeb)]
        return [
            (root, path)
            for root in roots
            for path in files(root)
            if not any(path.is_relative_to(place) for place in UNREAD)
        ]

    def _parts(self, udeb: Stanza) -> list[Stanza]:
        """The ordinary packages that a udeb of programs and libraries is made of."""
        main = self._one(self.ordinary, udeb["Package"].removesuffix(SUFFIX), udeb["Version"])
        of_their_own = [name.removesuffix(SUFFIX) for name in self.udebs if name.endswith(SUFFIX)]
        everything = needed(self.ordinary, [main["Package"]], {*of_their_own} - {main["Package"]})
        return [package for package in everything if source(package) == source(main)]

    def _model(self, udeb: Stanza, version: str) -> tuple[Path, str]:
        """The udeb with the same modules of another kernel, unpacked, and that kernel's version."""
        stem = udeb["Package"].replace(version, "\0")
        for packages in self.udebs.values():
            for other in packages:
                its = other.get("Kernel-Version", version)
                if its != version and other["Package"].replace(its, "\0") == stem:
                    return self._unpack(other), its
        raise CannotBeBuiltError(f"no other kernel's modules tell what is in {udeb['Package']}")

    def _one(self, packages: Index, name: str, version: str) -> Stanza:
        for package in packages.get(name, []):
            if package["Package"] == name and package["Version"] == version:
                return package
        raise CannotBeBuiltError(f"there is no {name} {version}")

    def _unpack(self, package: Stanza) -> Path:
        name = package["Package"]
        if name not in self._unpacked:
            try:
                file = self.fetch(package)
            except OSError as error:
                raise CannotBeBuiltError(f"{name} could not be fetched: {error}") from error
            root = self.work / f"of-{name}"
            _dpkg("--extract", str(file), str(root))
            self._unpacked[name] = root
        return self._unpacked[name]


def files(root: Path) -> Iterable[Path]:
    """The paths of all files and links below a directory, relative to it."""
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_symlink() or path.is_file())


def below_modules(path: Path, version: str) -> Path | None:
    """The path of a kernel's module below those of its version, None for other files; `/usr` may be merged or not."""
    plain = Path(*path.parts[1:]) if path.parts[0] == "usr" else path
    place = Path(MODULES) / version
    return plain.relative_to(place) if plain.is_relative_to(place) else None


def _dpkg(*arguments: str) -> None:
    subprocess.run(["dpkg-deb", *arguments], check=True, stdout=subprocess.DEVNULL)
