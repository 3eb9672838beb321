"""Finding kernels and ordering modules."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path, PurePosixPath

import pytest

from domzero.host.guest_image.kernel import GuestImageError, find_kernel, load_order, module_name, read_module

DEPENDENCIES = """\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
"""


def install(root: Path, version: str, *, modules: bool = True) -> None:
    (root / "boot").mkdir(parents=True, exist_ok=True)
    (root / "boot" / f"vmlinuz-{version}").write_bytes(b"kernel")
    if modules:
        (root / "lib/modules" / version).mkdir(parents=True)
        (root / "lib/modules" / version / "modules.dep").write_text(DEPENDENCIES)


def names(order: list[PurePosixPath]) -> list[str]:
    return [module_name(path) for path in order]


def test_dependencies_are_loaded_first_and_once() -> None:
    order = names(load_order(DEPENDENCIES, ["virtio_blk", "virtio_rng"]))
    assert order == ["virtio_ring", "virtio", "virtio_blk", "virtio_rng"]


def test_modules_that_are_built_in_are_left_out() -> None:
    assert names(load_order(DEPENDENCIES, ["ext4", "virtio"])) == ["virtio_ring", "virtio"]


def test_a_circle_of_dependencies_ends() -> None:
    assert sorted(names(load_order("a.ko: b.ko\nb.ko: a.ko\n", ["a"]))) == ["a", "b"]


def test_kernels_for_virtual_machines_come_first_and_newer_before_older(tmp_path: Path) -> None:
    for version in ("6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.12.0-1-amd64"):
        install(tmp_path, version)
    found = find_kernel([tmp_path])
    assert found is not None
    assert found.version == "6.1.0-10-cloud-amd64"
    assert found.image == tmp_path / "boot/vmlinuz-6.1.0-10-cloud-amd64"


def test_a_kernel_without_modules_is_passed_over(tmp_path: Path) -> None:
    install(tmp_path / "one", "6.1.0-9-cloud-amd64", modules=False)
    install(tmp_path / "two", "5.10.0-1-amd64")
    found = find_kernel([tmp_path / "missing", tmp_path / "one", tmp_path / "two"])
    assert found is not None
    assert found.version == "5.10.0-1-amd64"
    assert find_kernel([tmp_path / "one"]) is None


@pytest.mark.parametrize(
    ("name", "stored"),
    [("a.ko", b"module"), ("a.ko.xz", lzma.compress(b"module")), ("a.ko.gz", gzip.compress(b"module"))],
    ids=["plain", "xz", "gzip"],
)
def test_modules_are_read_uncompressed(tmp_path: Path, name: str, stored: bytes) -> None:
    (tmp_path / name).write_bytes(stored)
    assert read_module(tmp_path / name) == b"module"


@pytest.mark.parametrize("name", ["a.ko.xz", "a.ko.gz", "a.ko.zst"])
def test_damaged_and_unknown_modules_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(GuestImageError, match=name):
        read_module(tmp_path / name)
