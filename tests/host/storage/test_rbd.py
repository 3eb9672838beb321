"""What device_config and Ceph's tools say, understood without a cluster. `test_rbd_cluster` has one."""

from __future__ import annotations

import shutil

import orjson
import pytest

from domzero.host.hypervisor.spec import RemoteImage
from domzero.host.storage.protocol import Repository, StorageError
from domzero.host.storage.rbd import report as rbd_report
from domzero.host.storage.rbd.driver import RbdStorage
from domzero.host.storage.rbd.report import Image, Room
from domzero.host.storage.rbd.settings import read_settings
from tests.host.storage.disks import MIB, REPOSITORY, refused, uuid

KEY = "AQAj6gFrmsySBBAAerDsT9VdlCggGEpFwLTwCg=="


def test_settings() -> None:
    config = {"monitors": "a.example, [FD00::1]:3300", "pool": "p", "user": "client.ann", "key": KEY}
    settings = read_settings(config)
    assert settings.arguments() == ["-c", "/dev/null", "-m", "a.example:6789,[fd00::1]:3300", "--id", "ann"]
    assert settings.image("x") == RemoteImage(
        "rbd",
        (
            ("pool", "p"),
            ("image", "x"),
            ("user", "ann"),
            ("conf", "/dev/null"),
            ("server.0.host", "a.example"),
            ("server.0.port", "6789"),
            ("server.1.host", "fd00::1"),
            ("server.1.port", "3300"),
        ),
        "key-secret",
        KEY,
    )
    assert settings.image("x").encoded_secret == KEY.encode()
    assert KEY not in repr(settings) + repr(settings.image("x"))
    by_file = read_settings({"conf": "/etc/ceph/other.conf", "pool": "p"})
    assert by_file.arguments() == ["-c", "/etc/ceph/other.conf", "--id", "admin"]
    assert by_file.image("x").secret_option == ""


@pytest.mark.parametrize(
    ("number", "config"),
    [
        (102, {"pool": "p"}),
        (102, {"pool": "p", "monitors": " , "}),
        (115, {"monitors": "a"}),
        (140, {"monitors": "a\nb", "pool": "p"}),
        (140, {"monitors": "-c", "pool": "p"}),
        (140, {"monitors": "[::g]", "pool": "p"}),
        (140, {"monitors": "[1.2]", "pool": "p"}),
        (142, {"monitors": "a:0", "pool": "p"}),
        (142, {"monitors": "a:99999", "pool": "p"}),
        (1, {"monitors": "a", "pool": "p/q"}),
        (1, {"monitors": "a", "pool": "--id=x"}),
        (1, {"monitors": "a", "pool": "p", "user": "a b"}),
        (1, {"conf": "/etc/shadow", "pool": "p"}),
        (1, {"conf": "/etc/ceph/../shadow.conf", "pool": "p"}),
        (20, {"monitors": "a", "pool": "p", "key": "secret"}),
        (20, {"monitors": "a", "pool": "p", "key": f"{KEY}\n"}),
    ],
)
def test_settings_that_cannot_be(number: int, config: dict[str, str]) -> None:
    with pytest.raises(StorageError) as caught:
        read_settings(config)
    assert caught.value.number == number, caught.value.text
    assert KEY not in caught.value.text


def test_what_the_tools_print() -> None:
    listed = orjson.dumps(
        [
            {"image": "a", "id": "1", "size": 4096, "format": 2},
            {"image": "a", "id": "1", "snapshot": "s", "snapshot_id": 4, "size": 1024, "format": 2},
        ]
    )
    assert rbd_report.images_in(listed) == [Image("a", 4096)]
    counted = orjson.dumps(
        {
            "images": [
                {"name": "a", "id": "1", "snapshot": "s", "provisioned_size": 4096, "used_size": 100},
                {"name": "a", "id": "1", "provisioned_size": 4096, "used_size": 11},
            ]
        }
    )
    assert rbd_report.usage_in(counted) == [Image("a", 4096, 111)]
    pools = [{"name": "p", "id": 1, "stats": {"stored": 7, "objects": 1, "max_avail": 93}}, {"name": "q"}]
    assert rbd_report.room_in(orjson.dumps({"pools": pools}), "p") == Room(7, 93)
    assert rbd_report.room_in(orjson.dumps({"pools": pools}), "q") == Room(0, 0)
    assert rbd_report.is_watched(b'{"watchers":[{"address":"x","client":4,"cookie":1}]}')
    assert not rbd_report.is_watched(b'{"watchers":[]}')
    assert rbd_report.size_in(b'{"name":"a","size":5}') == 5
    assert rbd_report.names_in(b'["a","b"]') == ["a", "b"]


@pytest.mark.parametrize("said", [b"", b"null", b"[", b"7", b'[{"image":1}]', b'{"images":[7]}', b'{"size":-1}'])
def test_output_that_is_something_else_is_refused(said: bytes) -> None:
    for understand in (rbd_report.names_in, rbd_report.images_in, rbd_report.usage_in, rbd_report.size_in):
        with pytest.raises(StorageError) as caught:
            understand(said)
        assert caught.value.number == 202


def test_what_failures_mean() -> None:
    assert rbd_report.meaning("x\nrbd: create error: (17) File exists\n").number == 43
    assert rbd_report.meaning("").number == 202
    assert "ceph-common" in rbd_report.meaning("rbd could not be started: No such file or directory").text
    assert len(rbd_report.meaning("x" * 10000).text) <= 500


@pytest.mark.skipif(shutil.which("rbd") is None, reason="ceph-common is not installed")
async def test_monitors_that_do_not_answer() -> None:
    driver = RbdStorage(patience=0.3)
    there = Repository(REPOSITORY, {"monitors": "127.0.0.1:1", "pool": "p", "key": KEY})
    assert "did not finish" in await refused(47, driver.attach(there))
    await refused(47, driver.create_disk(there, uuid(1), MIB))
