"""PV_bootloader_args, and what is made of a Xen guest's kernel arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.bootloader.protocol import LoaderOptions
from domzero.host.upload.protocol import is_sendable
from domzero.toolstack.vm.disk_loader import has_boot_code
from domzero.toolstack.vm.install.loader_options import for_virtio, loader_options
from domzero.toolstack.vm.install.source import read_repository


@pytest.mark.parametrize(
    ("text", "arguments", "options"),
    [
        ("", "", LoaderOptions()),
        ("-q", "ro", LoaderOptions(arguments="ro")),
        ("--entry=2", "", LoaderOptions(entry="2")),
        ("--entry 'A title'", "", LoaderOptions(entry="A title")),
        (
            "--kernel=/boot/k --ramdisk=/boot/r --offset=512 --args=one",
            "two",
            LoaderOptions("", "/boot/k", "/boot/r", 512, "one two"),
        ),
    ],
)
def test_what_pygrub_is_asked(text: str, arguments: str, options: LoaderOptions) -> None:
    assert loader_options(text, arguments) == options


@pytest.mark.parametrize(
    "text",
    [
        "--output=/etc/passwd", "--output-directory=/etc", "--runas=0", "-i", "-l", "/dev/sda", "--isconfig", "--",
        "'", "--offset=-1", "--offset=x", "x" * 3000, "--entry=\n",
    ],
)  # fmt: skip
def test_what_pygrub_is_not_asked(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        loader_options(text, "")


def test_names_of_xen_become_those_of_virtio() -> None:
    before = "root=/dev/xvda1 swap=/dev/xvdc console=hvc0 x=/dev/xvdz"
    assert for_virtio(before, [2, 0]) == "root=/dev/vda1 swap=/dev/vdb console=ttyS0 x=/dev/xvdz"
    assert for_virtio("root=/dev/xvdd", [0]) == "root=/dev/xvdd"


def test_boot_sectors() -> None:
    signature = b"\x55\xaa"
    assert has_boot_code(b"\xeb" + bytes(509) + signature)
    assert not has_boot_code(bytes(446) + b"\x80" * 64 + signature)
    assert not has_boot_code(b"\xeb" * 512)
    assert not has_boot_code(b"")


WORDS = st.sampled_from(["--entry", "--kernel=", "--offset", "=", "9", "'", '"', "\\", " ", "-q", "--", "#", "²", "\n"])


@given(st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=12).map("".join)), st.text(max_size=20))
def test_whatever_is_written_there(text: str, arguments: str) -> None:
    try:
        found = loader_options(text, arguments)
    except ValueError:
        return
    assert found.offset is None or found.offset >= 0
    assert for_virtio(found.arguments, [0, 1]).isprintable()


@given(
    st.one_of(
        st.text(max_size=40), st.text(max_size=20).map("https://{}".format), st.text(max_size=9).map("nfs:{}".format)
    )
)
def test_whatever_address_a_repository_has(text: str) -> None:
    found = read_repository(text)
    is_sendable(text)
    if found is not None:
        assert found.kind in ("http", "https", "ftp", "nfs", "cdrom")
        assert " " not in found.public
        assert not found.path.endswith("/")
