"""Repositories of type `nfs`: what is asked of tools, and what happens where there is no server. See also tests/lab."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domzero.host.storage.files import nfs_settings
from domzero.host.storage.files.nfs import INFO, NfsStorage
from domzero.host.storage.files.nfs_settings import OPTIONS, export_of, exports_in, further, list_arguments, meaning
from domzero.host.storage.menus import NfsExport
from domzero.host.storage.mounts import mount_arguments
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import REPOSITORY, refused

GOOD = {"server": "filer", "serverpath": "/srv/vm"}


def test_what_is_mounted() -> None:
    export = export_of({**GOOD, "nfsversion": "4.1", "options": "rsize=65536, proto=tcp"})
    assert export is not None
    argv = mount_arguments(export.request(), Path("/mnt"))
    options = ",".join((*OPTIONS, "vers=4.1", "rsize=65536", "proto=tcp"))
    assert argv == ["mount", "-t", "nfs", "-o", options, "--", "filer:/srv/vm", Path("/mnt")]
    assert {"soft", "retry=0", "nosuid", "nodev", "noexec"} <= set(OPTIONS)
    assert list_arguments("filer")[-1] == "filer"


@pytest.mark.parametrize(
    ("server", "path", "source"),
    [
        ("10.0.0.1", "/srv/", "10.0.0.1:/srv"),
        ("fe80::1", "/", "[fe80::1]:/"),
        ("[::1]", "//a//b", "[::1]:/a/b"),
        ("filer.example", "/with blank,comma", "filer.example:/with blank,comma"),
    ],
)
def test_how_an_export_is_written(server: str, path: str, source: str) -> None:
    export = export_of({"server": server, "serverpath": path})
    assert export is not None
    assert export.request().source == source


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({}, 102),
        ({"serverpath": "/srv"}, 102),
        ({**GOOD, "server": "-o"}, 102),
        ({**GOOD, "server": "a b"}, 102),
        ({**GOOD, "server": "filer\n"}, 102),
        ({**GOOD, "server": "filer:/x"}, 102),
        ({**GOOD, "serverpath": "srv"}, 103),
        ({**GOOD, "serverpath": "/srv/../etc"}, 103),
        ({**GOOD, "serverpath": "/srv\n"}, 103),
        ({**GOOD, "serverpath": "/" + "x" * 2000}, 103),
        ({**GOOD, "nfsversion": "2"}, 72),
        ({**GOOD, "nfsversion": "4,hard"}, 72),
        ({**GOOD, "options": "hard"}, 1),
    ],
)
async def test_odd_configurations_are_refused(tmp_path: Path, config: dict[str, str], number: int) -> None:
    driver = NfsStorage(tmp_path)
    await refused(number, driver.create(Repository(REPOSITORY, config), 0))
    await refused(number, driver.attach(Repository(REPOSITORY, config)))
    await refused(number, driver.probe(config, {}))
    assert os.listdir(tmp_path) == []


HANGING = ("hard", "retry=10000", "timeo=0", "timeo=999", "retrans=99", "bg", "timeo=1\n0")
TRUSTING = ("suid", "dev", "exec", "addr=1.2.3.4", "mountaddr=1.2.3.4", "sec=none", "nolock", "local_lock=all")


@pytest.mark.parametrize("option", [*HANGING, *TRUSTING, "rsize=65536 -o suid"])
def test_options_that_could_hang_or_trust_are_refused(option: str) -> None:
    with pytest.raises(StorageError) as caught:
        further(option)
    assert caught.value.number == 1


def test_what_an_operator_may_add() -> None:
    wanted = "timeo=600,retrans=10,nconnect=4,sec=krb5p,port=2049,noac"
    assert ",".join(further(f"-o {wanted},")) == wanted


def test_what_showmount_prints() -> None:
    said = "/srv/vm       10.0.0.0/8,filer2\n/srv/with blank *\n/alone\nclnt_create: odd\n/everyone  (everyone)\n"
    assert exports_in(said) == [
        NfsExport("/srv/vm", "10.0.0.0/8,filer2"),
        NfsExport("/srv/with blank", "*"),
        NfsExport("/alone", "*"),
        NfsExport("/everyone", "(everyone)"),
    ]


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("mount.nfs: access denied by server while mounting filer:/x", 103),
        ("mount.nfs: mounting filer:/x failed, reason given by server: No such file or directory", 103),
        ("mount.nfs: Protocol not supported for 127.0.0.1:/x on /mnt", 72),
        ("mount.nfs: requested NFS version or transport protocol is not supported for /mnt", 72),
        ("mount.nfs: Connection refused for 127.0.0.1:/x on /mnt", 73),
        ("mount did not finish within 30 seconds", 73),
    ],
)
def test_what_mount_means(said: str, number: int) -> None:
    assert meaning(said) == number


async def test_a_name_that_nobody_knows(tmp_path: Path) -> None:
    driver = NfsStorage(tmp_path)
    config = {"server": "filer.invalid", "serverpath": "/srv"}
    await refused(140, driver.create(Repository(REPOSITORY, config), 0))
    await refused(140, driver.probe({"server": "filer.invalid"}, {}))


@pytest.mark.skipif(not Path("/usr/sbin/mount.nfs").exists(), reason="the NFS client's tools are not installed")
async def test_where_no_server_is(tmp_path: Path) -> None:
    """Nobody listens at this address of the loopback network."""
    driver = NfsStorage(tmp_path / "mounts")
    config = {"server": "127.9.9.9", "serverpath": "/srv"}
    await refused(73, driver.create(Repository(REPOSITORY, config), 0))
    await refused(73, driver.attach(Repository(REPOSITORY, config)))
    await refused(73, driver.probe(config, {}))
    await refused(73, driver.probe({"server": "127.9.9.9"}, {}))
    await driver.detach(Repository(REPOSITORY, config))
    assert list((tmp_path / "mounts").iterdir()) == []


def test_what_the_driver_says_of_itself(tmp_path: Path) -> None:
    assert NfsStorage(tmp_path).info() is INFO
    assert INFO.configuration is nfs_settings.CONFIGURATION
    assert "SR_PROBE" in INFO.capabilities
