"""QEMU's block drivers that are modules, for a domain that sees only its own root.

QEMU loads such a driver when it first meets an image that needs it. At start that is before it changes its root; later
the module and its libraries must be in there. They are copied when they are needed, below directories that the
domain's user cannot write.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.qemu.domain import Domain
from domzero.host.hypervisor.spec import DiskSource, RemoteImage
from domzero.host.process import ProcessError, run

PROGRAMS = Path("usr/bin")
"""QEMU looks for its modules by a path that leads from its own directory upwards, so that directory must be there."""
LIBRARY = re.compile(r"(?:=>\s+|^\s+)(/\S+)\s+\(0x[0-9a-f]+\)", re.MULTILINE)
"""A file in what ldd(1) prints."""


def module_directories() -> list[Path]:
    """Where distributions put QEMU's modules."""
    triplet = sysconfig.get_config_var("MULTIARCH")
    libraries = [f"lib/{triplet}"] if triplet else []
    return [Path("/usr") / library / "qemu" for library in (*libraries, "lib64", "lib")]


def module_of(driver: str, directories: Iterable[Path]) -> Path | None:
    """The file of a block driver's module, None where there is none: the driver may be built in."""
    return next((path for where in directories if (path := where / f"block-{driver}.so").is_file()), None)


async def provide(domain: Domain, chain: Sequence[DiskSource]) -> None:
    """Have the modules at hand that a chain's layers need, and what these read. Raises `HypervisorError`."""
    if domain.handle.uid is None:
        return
    for image in [layer.place for layer in chain if isinstance(layer.place, RemoteImage)]:
        try:
            needed = [*await _module(domain.files.root, image.driver), *configuration(image)]
            await asyncio.to_thread(copy_into, domain.files.root, needed)
        except (ProcessError, OSError) as error:
            raise HypervisorError(f"the domain cannot be given QEMU's {image.driver} driver: {error}") from error


def configuration(image: RemoteImage) -> list[Path]:
    """The files a driver reads. Ceph's may be /dev/null; the copy is then an empty file."""
    return [Path(str(value)) for name, value in image.options if (image.driver, name) == ("rbd", "conf")]


async def _module(root: Path, driver: str) -> list[Path]:
    """What is missing of a driver's module and its libraries."""
    module = module_of(driver, module_directories())
    if module is None or (root / module.relative_to("/")).exists():
        return []
    said = await run(["ldd", module], timeout=10)
    return [*(Path(found) for found in LIBRARY.findall(said.stdout.decode(errors="replace"))), module]


def copy_into(root: Path, files: Iterable[Path]) -> None:
    """Copy files to the same places below another root, readable by everybody; a module comes after its libraries.

    Raises `OSError`.
    """
    _make_directory(root, root / PROGRAMS)
    for path in files:
        target = root / path.relative_to("/")
        _make_directory(root, target.parent)
        partial = target.with_name(target.name + ".partial")
        shutil.copyfile(path, partial)
        partial.chmod(0o755)
        partial.replace(target)


def _make_directory(root: Path, directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if path.is_relative_to(root) and not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        path.chmod(0o755)
