"""Repositories of type `lvmoiscsi`: logical volumes on a logical unit of an iSCSI target, which hosts can share.

Who is there and what units it has is found out by a visit of our own (`iscsi_session`), which needs nothing of the
kernel, so that menus are to be had on every host. The unit itself is reached through the kernel's initiator.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from domzero.finish import finish
from domzero.host.storage import numbers
from domzero.host.storage.iscsi.initiator import Initiator
from domzero.host.storage.iscsi.name import MACHINE
from domzero.host.storage.iscsi.scsi import Unit
from domzero.host.storage.iscsi.session import PATIENCE, discover, survey
from domzero.host.storage.iscsi.settings import CHAP_LIMIT, Chap, IscsiSettings, read_settings
from domzero.host.storage.lvm.devices import INFO as LVM
from domzero.host.storage.lvm.driver import LvmStorage
from domzero.host.storage.menus import IscsiUnit, target_menu, unit_menu
from domzero.host.storage.protocol import DriverInfo, StorageError

INCOMING = ("incoming_chapuser", "incoming_chappassword")

INFO = DriverInfo(
    type="lvmoiscsi",
    name="LVM over iSCSI",
    description="Disks are logical volumes on a logical unit of an iSCSI target",
    vendor=LVM.vendor,
    copyright=LVM.copyright,
    version=LVM.version,
    required_api_version=LVM.required_api_version,
    capabilities=LVM.capabilities,
    configuration={
        "target": "name or address of the host of the target",
        "port": "its TCP port (3260)",
        "targetIQN": "the target's name",
        "SCSIid": "which of the target's units to use",
        "LUNid": "the number of that unit, where it has no SCSIid",
        "localIQN": "the name that this host calls itself, in place of its usual one",
        "chapuser": "CHAP name, where the target wants one",
        "chappassword": "CHAP password",
        "incoming_chapuser": "CHAP name that the target must prove to have",
        "incoming_chappassword": "CHAP password of the target",
        "force": "true to use a unit although it holds something, which is lost",
    },
    holds_images=False,
)


class IscsiUnits:
    """Implements `DeviceMedium`: `device_config` names a logical unit. `name` is this host's iSCSI name."""

    def __init__(self, name: str, initiator: Initiator, patience: float = PATIENCE) -> None:
        self._name = name
        self._initiator = initiator
        self._patience = patience
        self._users: Counter[tuple[str, str, str]] = Counter()
        self._order = asyncio.Lock()

    def info(self) -> DriverInfo:
        return INFO

    async def connect(self, device_config: Mapping[str, str]) -> tuple[Path, ...]:
        """Raises `StorageError` 95, 96 (with a menu of targets) and 107 (with a menu of units) for what is missing."""
        settings = self._settings(device_config)
        incoming = incoming_of(device_config)
        if not settings.iqn:
            menu = target_menu(await discover(settings, self._patience))
            raise StorageError(numbers.TARGET_IQN_MISSING, "device_config has no targetIQN", menu)
        unit = choose(await survey(settings, self._patience), device_config)
        async with self._order:
            self._users[_session(settings)] += 1
            try:
                await self._initiator.log_in(settings, incoming)
                return (await self._initiator.device(settings, unit.lun),)
            except BaseException:
                await finish(self._leave(settings))
                raise

    async def disconnect(self, device_config: Mapping[str, str]) -> None:
        settings = self._settings(device_config)
        async with self._order:
            await self._leave(settings)

    async def _leave(self, settings: IscsiSettings) -> None:
        session = _session(settings)
        self._users[session] -= 1
        if self._users[session] <= 0:
            del self._users[session]
            await self._initiator.log_out(settings)

    def _settings(self, device_config: Mapping[str, str]) -> IscsiSettings:
        ours = {key: value for key, value in device_config.items() if key not in INCOMING}
        return read_settings(ours, self._name)


def lvm_over_iscsi(name: str, initiator: Initiator | None = None, machine: Path = MACHINE) -> LvmStorage:
    """The driver. `name` is this host's iSCSI name, `machine` the file with its identity (machine-id(5)). Blocking."""
    return LvmStorage(IscsiUnits(name, initiator or Initiator()), host=host_mark(machine, name))


def host_mark(machine: Path, name: str) -> str:
    """What this host marks its volumes with while it works on them: no other host of a pool has the same."""
    try:
        identity = machine.read_bytes().strip()
    except OSError:
        identity = b""
    return hashlib.sha256(b"lvm" + (identity or name.encode())).hexdigest()[:16]


def choose(units: list[Unit], device_config: Mapping[str, str]) -> Unit:
    """The unit that a configuration names. Raises `StorageError` 107 with a menu."""
    wanted, number = device_config.get("SCSIid", "").strip(), device_config.get("LUNid", "").strip()
    if wanted:
        found = [unit for unit in units if unit.scsi_id == wanted]
        text = f"the target has {len(found)} units with the SCSIid {wanted!r}"
    else:
        found = [unit for unit in units if number and str(unit.lun) == number]
        text = f"the target has no unit {number!r}" if number else "device_config has no SCSIid"
    if len(found) != 1:
        raise StorageError(numbers.SCSI_ID_MISSING, text, unit_menu(map(_row, units)))
    return found[0]


def incoming_of(device_config: Mapping[str, str]) -> Chap | None:
    """Who the target must prove to be. Raises `StorageError` 20."""
    user, password = (device_config.get(key, "") for key in INCOMING)
    if not user and not password:
        return None
    usable = all(text and text.isprintable() and len(text.encode()) <= CHAP_LIMIT for text in (user, password))
    if not usable or not device_config.get("chapuser"):
        text = "incoming_chapuser and incoming_chappassword go together, and with chapuser"
        raise StorageError(numbers.SECRET_INVALID, text)
    return Chap(user, password)


def _row(unit: Unit) -> IscsiUnit:
    return IscsiUnit(unit.lun, unit.scsi_id, unit.size, unit.vendor, unit.serial)


def _session(settings: IscsiSettings) -> tuple[str, str, str]:
    return settings.iqn, str(settings.portal), settings.initiator
