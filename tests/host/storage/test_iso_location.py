"""What device_config of an ISO repository is understood as, and what is refused."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from domzero.host.storage.iso.location import NFS_OPTIONS, SMB_OPTIONS, Share, images_of
from domzero.host.storage.protocol import Repository, StorageError
from tests.host.storage.disks import REPOSITORY

TOP = PurePosixPath()


def understood(**config: str) -> Path | Share:
    return images_of(Repository(REPOSITORY, config))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"location": "/srv/iso"}, Path("/srv/iso")),
        ({"location": "/srv/iso", "legacy_mode": "true"}, Path("/srv/iso")),
        ({"location": "filer:/iso"}, Share("nfs", "filer:/iso", NFS_OPTIONS, TOP)),
        (
            {"location": "[fd00::1]:/iso", "type": "nfs_iso", "nfsversion": "4.1", "options": "-o tcp,port=2049"},
            Share("nfs", "[fd00::1]:/iso", (*NFS_OPTIONS, "vers=4.1", "tcp", "port=2049"), TOP),
        ),
        ({"location": "//filer/iso"}, Share("cifs", "//filer/iso", (*SMB_OPTIONS, "guest"), TOP)),
        (
            {
                "location": "\\\\filer\\iso",
                "type": "cifs",
                "username": "OFFICE\\ann",
                "cifspassword": "a,b=c",
                "vers": "3.0",
                "iso_path": "/linux",
            },
            Share(
                "cifs",
                "//filer/iso",
                (*SMB_OPTIONS, "vers=3.0", "username=ann", "domain=OFFICE"),
                PurePosixPath("linux"),
                "a,b=c",
            ),
        ),
    ],
    ids=["directory", "legacy", "nfs", "nfs with options", "guest", "user"],
)
def test_locations(config: dict[str, str], expected: Path | Share) -> None:
    assert understood(**config) == expected


@pytest.mark.parametrize(
    ("number", "config"),
    [
        (94, {}),
        (94, {"location": "images"}),
        (94, {"location": "/a/../b"}),
        (94, {"location": "//a/b", "legacy_mode": "true"}),
        (1, {"location": "/a", "type": "gluster"}),
        (225, {"location": "-oproxy:/a"}),
        (225, {"location": "filer:a"}),
        (225, {"location": "fi ler:/a"}),
        (225, {"location": "filer:/a\nb"}),
        (225, {"location": "//filer"}),
        (225, {"location": "//filer/a,username=root"}),
        (225, {"location": "//filer/../a"}),
        (225, {"location": "filer:/a", "iso_path": "x/../../etc"}),
        (72, {"location": "filer:/a", "nfsversion": "2"}),
        (1, {"location": "//filer/a", "vers": "9"}),
        (1, {"location": "filer:/a", "options": "rw"}),
        (1, {"location": "filer:/a", "options": "soft,bind"}),
        (1, {"location": "//filer/a", "options": "credentials=/etc/shadow"}),
        (20, {"location": "//filer/a", "username": "ann,uid=0", "cifspassword": "x"}),
        (20, {"location": "//filer/a", "username": "ann", "cifspassword": "x\ny"}),
    ],
)
def test_what_cannot_be_is_refused(number: int, config: dict[str, str]) -> None:
    with pytest.raises(StorageError) as caught:
        understood(**config)
    assert caught.value.number == number, caught.value.text


def test_a_password_is_neither_among_the_options_nor_shown() -> None:
    share = understood(location="//filer/a", username="ann", cifspassword="hunter2")
    assert isinstance(share, Share)
    assert share.password == "hunter2"
    assert "hunter2" not in repr(share)
    assert "hunter2" not in ",".join(share.options)
