"""What drivers say of themselves fits what they can do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domzero.host.storage import registry
from domzero.host.storage.protocol import StorageDriver, StorageError
from domzero.host.storage.refusals import Refusals
from domzero.host.storage.registry import BUILT_IN, Surroundings, make_drivers

NEEDED = {
    "SR_PROBE": "probe",
    "VDI_CREATE": "create_disk",
    "VDI_DELETE": "destroy_disk",
    "VDI_CLONE": "clone_disk",
    "VDI_SNAPSHOT": "snapshot_disk",
    "VDI_RESIZE": "resize_disk",
    "VDI_RESIZE_ONLINE": "resize_disk",
}
"""Capability → the method that it is about."""
OTHERS = {
    "SR_UPDATE", "SR_ATTACH", "SR_DETACH", "SR_SCAN", "SR_CREATE", "SR_DELETE", "THIN_PROVISIONING", "VDI_ATTACH",
    "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE", "VDI_UPDATE", "VDI_INTRODUCE",
}  # fmt: skip


def made(type: str, directory: Path) -> StorageDriver:
    try:
        return BUILT_IN[type](Surroundings(directory, directory, directory / "mounts"))
    except StorageError as error:
        pytest.skip(f"{type}: {error.text}")


def refuses(driver: StorageDriver, method: str) -> bool:
    return getattr(type(driver), method) is getattr(Refusals, method)


@pytest.mark.parametrize("type_", BUILT_IN)
def test_a_driver_can_what_it_says(type_: str, tmp_path: Path) -> None:
    driver = made(type_, tmp_path)
    info = driver.info()
    assert info.type == type_
    assert set(info.capabilities) <= {*NEEDED, *OTHERS}
    assert len(set(info.capabilities)) == len(info.capabilities)
    for capability, method in NEEDED.items():
        if capability in info.capabilities:
            assert not refuses(driver, method), f"{capability} without {method}"
    if refuses(driver, "create_image"):
        assert not ("VDI_CREATE" in info.capabilities and info.holds_images), "memory would be saved there in vain"
    assert all((info.name, info.description, info.vendor, info.version, info.required_api_version))
    assert info.content_type in ("user", "iso", "disk")


def test_without_roots_rights_the_rest_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    drivers = make_drivers(Surroundings(tmp_path, tmp_path, tmp_path / "mounts"))
    assert {"file", "iso", "dummy"} <= drivers.keys()
    assert {"lvm", "ext", "nfs"}.isdisjoint(drivers)
