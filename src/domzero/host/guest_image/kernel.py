"""Finding a Linux kernel to boot guests with, and the modules that such a guest needs.

A *root* is a directory laid out like an installed system: `boot/vmlinuz-VERSION` beside `lib/modules/VERSION`. The
machine's own `/` is one; `script/bootstrap` unpacks Debian's cloud kernel into another, so that nothing of the
machine's own boot set-up is touched.
"""

from __future__ import annotations

import gzip
import lzma
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

WHAT_TO_INSTALL = (
    "Tiny Linux needs a Linux kernel with its modules and a statically linked busybox: install the Debian packages "
    "linux-image-cloud-amd64 and busybox-static, or run script/bootstrap"
)


class GuestImageError(Exception):
    """The image cannot be made; the text says what is missing and what to install."""


@dataclass(frozen=True, slots=True)
class GuestKernel:
    """An installed kernel."""

    version: str
    """What `uname -r` says in the guest."""
    image: Path
    modules: Path
    """The directory with `modules.dep`."""


def default_roots(prefix: Path = Path(sys.prefix)) -> tuple[Path, ...]:
    """Where kernels are looked for when no setting says otherwise: what came with domzero, then the machine's own."""
    return (prefix / "share/domzero/guest-kernel", Path("/"))


def find_kernel(roots: Iterable[Path]) -> GuestKernel | None:
    """The best kernel of the first root that has one, or None.

    Kernels made for virtual machines (`-cloud-`) come before others, newer ones before older ones. A kernel without
    its modules, or that this process may not read, is passed over.
    """
    for root in roots:
        found = [kernel for image in root.glob("boot/vmlinuz-*") if (kernel := _kernel(root, image)) is not None]
        if found:
            return max(found, key=_preference)
    return None


def _kernel(root: Path, image: Path) -> GuestKernel | None:
    version = image.name.removeprefix("vmlinuz-")
    modules = root / "lib/modules" / version
    try:
        with image.open("rb"), (modules / "modules.dep").open("rb"):
            return GuestKernel(version, image, modules)
    except OSError:
        return None


def _preference(kernel: GuestKernel) -> tuple[bool, list[int], str]:
    return "-cloud-" in kernel.version, [int(part) for part in re.findall(r"\d+", kernel.version)], kernel.version


def load_order(dependencies: str, wanted: Sequence[str]) -> list[PurePosixPath]:
    """The module files to load for the wanted modules, each once and after everything it depends on.

    `dependencies` is the text of a `modules.dep` (see depmod(8)). Modules are named as the kernel does, with `_` or `-`
    meaning the same. A wanted module that is not listed is left out: it is built in, or the kernel does not have it.
    """
    rows = {
        PurePosixPath(name): [PurePosixPath(other) for other in rest.split()]
        for name, colon, rest in (line.partition(":") for line in dependencies.splitlines())
        if colon
    }
    by_name = {module_name(path): path for path in rows}
    order: list[PurePosixPath] = []
    for name in wanted:
        if (path := by_name.get(name.replace("-", "_"))) is not None:
            _visit(path, rows, order, set())
    return order


def _visit(
    path: PurePosixPath,
    rows: dict[PurePosixPath, list[PurePosixPath]],
    order: list[PurePosixPath],
    above: set[PurePosixPath],
) -> None:
    if path in order or path in above:
        return
    for other in rows.get(path, []):
        _visit(other, rows, order, above | {path})
    order.append(path)


def module_name(path: PurePosixPath) -> str:
    """`kernel/drivers/char/hw_random/virtio-rng.ko.xz` → `virtio_rng`."""
    return path.name.partition(".ko")[0].replace("-", "_")


def read_module(path: Path) -> bytes:
    """A module's bytes, uncompressed. Raises `GuestImageError` for a compression that is not known here."""
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".ko":
                return data
            case ".xz":
                return lzma.decompress(data)
            case ".gz":
                return gzip.decompress(data)
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise GuestImageError(f"{path} is damaged: {error}") from error
    raise GuestImageError(f"{path} is compressed in a way that is not supported. {WHAT_TO_INSTALL}")
