"""A mirror that lacks packages of the installer is made whole by what is built from ordinary packages."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.debian.mirror import ORDINARY, UDEBS, Mirror, fill, installed
from tests.debian.packages import Stanza, stanzas, written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's package tools"),
]
OLD, NEW = "6.1.1", "6.1.2"


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_about: object) -> None:
        """The tests say what matters."""


class Archive:
    """A mirror in a directory, with what a test puts there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.indexes: dict[str, list[Stanza]] = {UDEBS: [], ORDINARY: []}

    def add(self, name: str, files: dict[str, str], *, there: bool = True, udeb: bool = False, **fields: str) -> Stanza:
        """A package with these files; `there` says whether the mirror has more of it than its name."""
        control = {"Package": name, "Version": "1", "Architecture": "amd64", "Maintainer": "Nobody <a@b>"}
        control |= {field.replace("_", "-"): value for field, value in fields.items()} | {"Description": name}
        tree = self.root / "tree"
        for path, text in {**files, "DEBIAN/control": written([control]).rstrip("\n") + "\n"}.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        file = self.root / "pool" / f"{name}_1_amd64.{'udeb' if udeb else 'deb'}"
        file.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "--build", tree, file], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
        content = file.read_bytes()
        if not there:
            file.unlink()
        about = {"Filename": f"pool/{file.name}", "Size": str(len(content))}
        package = {**control, **about, "SHA256": hashlib.sha256(content).hexdigest()}
        self.indexes[UDEBS if udeb else ORDINARY].append(package)
        return package

    def publish(self) -> None:
        for name, packages in self.indexes.items():
            file = self.root / "dists" / "newest" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(lzma.compress(written(packages).encode()))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    root = tmp_path / "mirror"
    root.mkdir()
    return Archive(root)


@pytest.fixture
def mirror(archive: Archive) -> Iterator[Mirror]:
    handler = partial(Silent, directory=archive.root)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Mirror(f"http://127.0.0.1:{server.server_port}", "newest")
        finally:
            server.shutdown()
            thread.join()


def unpacked(content: bytes, place: Path) -> dict[str, str]:
    """The files of a package: path → content."""
    place.mkdir()
    file = place.with_suffix(".udeb")
    file.write_bytes(content)
    subprocess.run(["dpkg-deb", "--raw-extract", file, place], check=True)
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def test_a_whole_mirror_needs_nothing(archive: Archive, mirror: Mirror, tmp_path: Path) -> None:
    archive.add("partitioner-udeb", {"bin/partition": "p"}, udeb=True, Priority="standard")
    archive.add("unasked-udeb", {"bin/x": "x"}, udeb=True, there=False, Priority="optional")
    archive.publish()
    filling = fill(mirror, NEW, (), tmp_path / "kept")
    assert (filling.files, filling.suite, filling.built, filling.left_out) == ({}, "", [], [])


def test_programs_come_from_the_ordinary_package_with_the_libraries_of_its_source(
    archive: Archive, mirror: Mirror, tmp_path: Path
) -> None:
    archive.add("fs-udeb", {}, udeb=True, there=False, Priority="standard", Depends="libc-udeb")
    archive.add("libc-udeb", {"lib/libc.so": "theirs"}, udeb=True)
    manual = {"usr/share/man/mkfs": "to be read", "usr/lib/systemd/system/fs.timer": "later"}
    archive.add("fs", {"sbin/mkfs": "mkfs", **manual}, Depends="libfs, libc, other", Source="fs-source")
    archive.add("libfs", {"lib/libfs.so": "libfs"}, Source="fs-source (1)")
    archive.add("libc", {"lib/libc.so": "not this"}, Source="fs-source")
    archive.add("other", {"bin/other": "not this"})
    archive.publish()
    filling = fill(mirror, NEW, ("libc-udeb",), tmp_path / "kept")
    assert (filling.built, filling.left_out) == (["fs-udeb"], [])
    made = unpacked(filling.files["pool/fs-udeb_1_amd64.udeb"], tmp_path / "made")
    control = made.pop("DEBIAN/control")
    assert made == {"sbin/mkfs": "mkfs", "lib/libfs.so": "libfs"}
    assert "Package: fs-udeb\n" in control
    assert "Filename" not in control


def test_the_index_names_what_was_built_and_is_named_by_its_release(
    archive: Archive, mirror: Mirror, tmp_path: Path
) -> None:
    archive.add("fs-udeb", {}, udeb=True, there=False, Priority="standard")
    archive.add("odd-udeb", {}, udeb=True, there=False, Priority="standard")
    archive.add("fs", {"sbin/mkfs": "mkfs"})
    archive.publish()
    filling = fill(mirror, NEW, (), tmp_path / "kept")
    assert filling.left_out == ["odd-udeb (there is no odd 1)"]
    content = filling.files[f"dists/{filling.suite}/{UDEBS}"]
    [listed] = stanzas(lzma.decompress(content).decode())
    built = filling.files[listed["Filename"]]
    assert listed["SHA256"] == hashlib.sha256(built).hexdigest()
    assert listed["Size"] == str(len(built))
    release = filling.files[f"dists/{filling.suite}/Release"].decode()
    assert f"SHA256:\n {hashlib.sha256(content).hexdigest()} {len(content)} {UDEBS}\n" in release


def test_modules_come_from_the_kernel_and_are_those_of_another_version(
    archive: Archive, mirror: Mirror, tmp_path: Path
) -> None:
    def modules(version: str, *names: str) -> dict[str, str]:
        return {f"lib/modules/{version}/kernel/{name}.ko": f"{name} {version}" for name in names}

    def add(kind: str, version: str, files: dict[str, str], *, there: bool) -> None:
        archive.add(f"{kind}-modules-{version}-di", files, udeb=True, there=there, Priority="standard",
                    Kernel_Version=version)  # fmt: skip

    add("ext4", OLD, modules(OLD, "ext4", "jbd2", "gone"), there=True)
    add("ext4", NEW, {}, there=False)
    add("new", NEW, {}, there=False)
    files = {f"usr/{path}": text for path, text in modules(NEW, "ext4", "jbd2", "sound").items()}
    archive.add(f"linux-image-{NEW}", {**files, "boot/vmlinuz": "kernel"})
    archive.publish()
    filling = fill(mirror, NEW, (), tmp_path / "kept")
    assert filling.built == [f"ext4-modules-{NEW}-di"]
    assert filling.left_out == [
        f"new-modules-{NEW}-di (no other kernel's modules tell what is in new-modules-{NEW}-di)"
    ]
    made = unpacked(filling.files[f"pool/ext4-modules-{NEW}-di_1_amd64.udeb"], tmp_path / "made")
    del made["DEBIAN/control"]
    assert made == {f"usr/{path}": text for path, text in modules(NEW, "ext4", "jbd2").items()}


def test_what_was_built_is_found_again_and_nothing_else_is_kept(
    archive: Archive, mirror: Mirror, tmp_path: Path
) -> None:
    archive.add("fs-udeb", {}, udeb=True, there=False, Priority="standard")
    ordinary = archive.add("fs", {"sbin/mkfs": "mkfs"})
    archive.publish()
    first = fill(mirror, NEW, (), tmp_path / "kept")
    (archive.root / ordinary["Filename"]).unlink()
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["fs-udeb_1_amd64.udeb"]
    assert fill(mirror, NEW, (), tmp_path / "kept").files == first.files


def test_a_package_that_is_not_what_the_index_says_is_not_used(
    archive: Archive, mirror: Mirror, tmp_path: Path
) -> None:
    archive.add("fs-udeb", {}, udeb=True, there=False, Priority="standard")
    ordinary = archive.add("fs", {"sbin/mkfs": "mkfs"})
    archive.publish()
    (archive.root / ordinary["Filename"]).write_bytes(b"something else")
    filling = fill(mirror, NEW, (), tmp_path / "kept")
    assert filling.built == []
    assert "fs_1_amd64.deb is not the one that the index names" in filling.left_out[0]


def test_what_the_system_will_lack_is_told(archive: Archive, mirror: Mirror) -> None:
    archive.add("base", {"a": "a"}, Priority="required", Depends="lib")
    archive.add("lib", {"b": "b"}, there=False)
    archive.add("kernel", {"c": "c"}, there=False)
    archive.add("game", {"d": "d"}, there=False)
    archive.publish()
    lacking = mirror.lacking(installed(mirror.packages(ORDINARY), ["kernel"]))
    assert {package["Package"] for package in lacking} == {"lib", "kernel"}
