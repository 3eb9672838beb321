"""The command line of pygrub and of what confines it, and what its answers mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.bootloader.protocol import LoaderError, LoaderOptions
from domzero.host.bootloader.pygrub import answer, command_line, reason
from domzero.host.bootloader.sandbox import Limits, confined


def test_options_are_one_word_each() -> None:
    options = LoaderOptions(entry="-i", kernel="/k", ramdisk="/r", offset=0, arguments="--output=/x y")
    assert command_line(options)[4:] == [
        *("--entry=-i", "--kernel=/k", "--ramdisk=/r", "--offset=0", "--args=--output=/x y", "--", "/disk")
    ]


@pytest.mark.parametrize("user", [None, 4711])
def test_what_confines_it(user: int | None) -> None:
    argv = confined(["program"], Path("/run/x/disk"), Path("/run/x/out"), user, Limits())
    line = " ".join(argv)
    assert argv[0] == "bwrap"
    assert argv[-1] == "program"
    assert "--ro-bind /run/x/disk /disk --bind /run/x/out /out" in line
    assert "--no-new-privs" in line
    assert f"--as={1 << 30} --fsize={512 << 20} --cpu=30" in line
    if user is None:
        assert "--unshare-all" in argv
        assert "--cap-add" not in argv
    else:
        assert "--unshare-net" in argv
        assert "--reuid=4711 --regid=4711 --clear-groups" in line


def test_answers() -> None:
    said = b"kernel /out/boot_kernel.x\0ramdisk /out/boot_ramdisk.y\0args root=/dev/xvda1 ro\0\0"
    found = {"kernel": "boot_kernel.x", "ramdisk": "boot_ramdisk.y", "args": "root=/dev/xvda1 ro"}
    assert answer(said) == found
    assert answer(b"kernel /out/k\0\0") == {"kernel": "k", "args": ""}


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff" * 100,
        b"kernel /etc/shadow\0\0",
        b"kernel /out/../../etc/shadow\0\0",
        b"kernel /out/..\0\0",
        b"kernel /out/\0\0",
        b"ramdisk /out/r\0\0",
        b"kernel /out/k\0ramdisk /out/a/b\0\0",
        b"kernel /out/k\0args a\nb\0\0",
        b"kernel /out/k\0args " + b"a" * 5000 + b"\0\0",
    ],
)
def test_answers_that_are_not_believed(said: bytes) -> None:
    with pytest.raises(LoaderError):
        answer(said)


def test_reasons() -> None:
    assert "no partition" in reason(b"Traceback\nRuntimeError: Unable to find partition containing kernel\n")
    assert reason(b"") == "pygrub cannot boot the machine's disk: it ended without a word"
    assert len(reason(b"x\x1b[31m" * 1000)) < 300
    assert "\x1b" not in reason(b"a\x1b[31m")


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from([b"kernel ", b"ramdisk ", b"args ", b"/out/", b"k", b"..", b"\0", b"\n", b"\xff", b" "]),
            max_size=12,
        ).map(b"".join),
    )
)
def test_whatever_a_loader_says(said: bytes) -> None:
    try:
        found = answer(said)
    except LoaderError:
        return
    assert found.keys() <= {"kernel", "ramdisk", "args"}
    assert all("/" not in found.get(name, "") for name in ("kernel", "ramdisk"))
    assert found["args"].isprintable()
    assert reason(said)
