"""Archives of machines as other products write them, for tests of the import: made from the format's facts, with
Python's `tarfile`, `gzip` and `xmlrpc.client`, the program `zstd` and the published XXH64, and none of our own code.

    xva(machine("web", {"0": b"..."}))                        as XenServer 4.1 writes it
    xva(..., export_vsn=1, checksum="xxhash", compress="zstd")
    xva(..., keep_alive=True)                                  members without bytes, between omitted zeros
    legacy("web", {"xvda": b"..."})                            before XenServer 4.0

What must be refused is in `xva_broken.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
import uuid
import xmlrpc.client
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

BLOCK = 1 << 20
NULL = "OpaqueRef:NULL"
FIRST_NETWORK = "Pool-wide network associated with eth0"
"""The one on the bridge `xenbr0`, which every host has."""

Part = tuple[str, bytes]
"""A member: its name and content."""


@dataclass(frozen=True)
class Machine:
    """What an archive describes. `objects` are (class, id, snapshot), `disks` the contents by `Ref:<n>` of the VDI."""

    objects: Sequence[tuple[str, str, Mapping[str, Any]]]
    disks: Mapping[str, bytes]


@dataclass(frozen=True)
class Form:
    """How an archive is written."""

    export_vsn: int = 2
    checksum: Literal["sha1", "xxhash"] = "sha1"
    compress: Literal["none", "gzip", "zstd"] = "none"
    keep_alive: bool = False
    xapi: tuple[int, int] = (1, 9)
    tar_format: int = tarfile.USTAR_FORMAT


def xva(machine: Machine, form: Form | None = None, **changes: Any) -> bytes:
    """An archive of the machine. `changes` are fields of `Form`."""
    form = replace(form or Form(), **changes)
    return compressed(tar(parts(machine, form), form.tar_format), form.compress)


def parts(machine: Machine, form: Form) -> list[Part]:
    """The members of an archive, in order."""
    found: list[Part] = [("ova.xml", manifest(machine.objects, form.export_vsn, form.xapi))]
    table: dict[str, str] = {}
    for id in sorted(machine.disks):
        for number, content in blocks(machine.disks[id], form.keep_alive):
            name = f"{id}/{number:08d}"
            found.append((name, content))
            table[name] = hashlib.sha1(content).hexdigest()
            if form.export_vsn:
                found.append(checksum_part(name, content, form.checksum))
    if form.export_vsn < 2:
        found.append(("checksum.xml", xml_value(table)))
    return found


def blocks(content: bytes, keep_alive: bool = False) -> Iterator[tuple[int, bytes]]:
    """The blocks of a disk with their numbers. Zeros between the first and the last are left out.

    With `keep_alive`, each block that is left out takes so long to look at that an empty block with a number of its own
    comes before it.
    """
    number = 0
    for offset in range(0, max(len(content), 1), BLOCK):
        block = content[offset : offset + BLOCK]
        inside = 0 < offset < len(content) - BLOCK
        if inside and not any(block):
            if keep_alive:
                yield number, b""
                number += 1
        else:
            yield number, block
        number += 1


def checksum_part(name: str, content: bytes, kind: str) -> Part:
    if kind == "xxhash":
        return f"{name}.xxhash", f"{xxh64(content):016X}".encode()
    return f"{name}.checksum", hashlib.sha1(content).hexdigest().encode()


def manifest(
    objects: Iterable[tuple[str, str, Mapping[str, Any]]], export_vsn: int = 2, xapi: tuple[int, int] = (1, 9)
) -> bytes:
    """An `ova.xml`."""
    version = {
        "hostname": "example", "date": "20080301T12:00:00Z", "product_version": "4.1.0",
        "product_brand": "XenServer", "build_number": "7843p", "xapi_major": xapi[0], "xapi_minor": xapi[1],
        "export_vsn": export_vsn,
    }  # fmt: skip
    listed = [{"class": cls, "id": id, "snapshot": dict(snapshot)} for cls, id, snapshot in objects]
    return xml_value({"version": version, "objects": listed})


def xml_value(value: Any) -> bytes:
    """XML-RPC's `<value>` of it."""
    text = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True)
    return text[text.index("<value>") : text.rindex("</value>") + len("</value>")].encode()


def tar(members: Iterable[Part | tarfile.TarInfo], format: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o400
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def compressed(data: bytes, how: str) -> bytes:
    match how:
        case "gzip":
            return gzip.compress(data, 1)
        case "zstd":
            return subprocess.run(["zstd", "-1", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def machine(
    name: str = "imported",
    disks: Mapping[str, bytes] | None = None,
    *,
    vm: Mapping[str, Any] | None = None,
    cd: str | None = None,
    network: str = FIRST_NETWORK,
) -> Machine:
    """A halted machine with disks (content by `userdevice`), one interface and perhaps a CD drive with an image in it.

    `vm` changes fields of the VM. The records name what XenServer's do, not everything that exists today.
    """
    contents = {"0": b"boot" + bytes(2 * BLOCK)} if disks is None else disks
    bridge = "xenbr0" if network == FIRST_NETWORK else "xapi77"
    host, vm_id, network_id, vif, sr = (f"Ref:{n}" for n in range(5))
    vbds = {device: f"Ref:{5 + 2 * n}" for n, device in enumerate(contents)}
    vdis = {device: f"Ref:{6 + 2 * n}" for n, device in enumerate(contents)}
    objects: list[tuple[str, str, Mapping[str, Any]]] = [
        ("host", host, {"uuid": new_uuid(), "name_label": "example", "hostname": "example"}),
        ("VM", vm_id, vm_record(name, host, list(vbds.values()), [vif], vm or {})),
    ]
    for device, content in contents.items():
        objects.append(("VBD", vbds[device], vbd_record(vm_id, vdis[device], device)))
        objects.append(("VDI", vdis[device], vdi_record(f"{name} {device}", sr, vbds[device], len(content))))
    objects += [
        ("VIF", vif, vif_record(vm_id, network_id)),
        ("network", network_id, {"uuid": new_uuid(), "name_label": network, "bridge": bridge, "VIFs": [vif]}),
        ("SR", sr, {"uuid": new_uuid(), "name_label": "Local storage", "type": "lvm", "content_type": "user"}),
    ]
    if cd is not None:
        objects += cd_objects(cd, vm_id, 5 + 2 * len(contents))
    return Machine(objects, {vdis[device]: content for device, content in contents.items()})


def cd_objects(image: str, vm_id: str, first: int) -> list[tuple[str, str, Mapping[str, Any]]]:
    vbd, vdi, sr = (f"Ref:{first + n}" for n in range(3))
    return [
        ("VBD", vbd, {**vbd_record(vm_id, vdi, "3"), "type": "CD", "mode": "RO", "bootable": False}),
        ("VDI", vdi, {**vdi_record(image, sr, vbd, 1 << 20), "location": image, "read_only": True}),
        ("SR", sr, {"uuid": new_uuid(), "name_label": "CDs", "type": "iso", "content_type": "iso"}),
    ]


def vm_record(
    name: str, host: str, vbds: Sequence[str], vifs: Sequence[str], changes: Mapping[str, Any]
) -> dict[str, Any]:
    size = str(256 << 20)
    return {
        "uuid": new_uuid(), "name_label": name, "name_description": "made for a test", "power_state": "Halted",
        "user_version": "1", "is_a_template": False, "resident_on": NULL, "affinity": host,
        "memory_static_max": size, "memory_dynamic_max": size, "memory_dynamic_min": size,
        "memory_static_min": str(16 << 20), "VCPUs_params": {}, "VCPUs_max": "2", "VCPUs_at_startup": "2",
        "actions_after_shutdown": "destroy", "actions_after_reboot": "restart", "actions_after_crash": "restart",
        "consoles": [], "VIFs": list(vifs), "VBDs": list(vbds), "VTPMs": [], "crash_dumps": [],
        "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "",
        "PV_legacy_args": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cd"},
        "platform": {"acpi": "true", "apic": "true", "pae": "true"}, "PCI_bus": "",
        "other_config": {"mac_seed": new_uuid()}, "domid": "-1", "is_control_domain": False, "suspend_VDI": NULL,
        "metrics": NULL, "guest_metrics": NULL, "last_booted_record": "", "recommendations": "", **changes,
    }  # fmt: skip


def vbd_record(vm: str, vdi: str, device: str) -> dict[str, Any]:
    return {
        "uuid": new_uuid(), "VM": vm, "VDI": vdi, "userdevice": device, "device": "", "bootable": device == "0",
        "mode": "RW", "type": "Disk", "unpluggable": False, "storage_lock": False, "empty": False,
        "other_config": {}, "currently_attached": False, "status_code": "0", "status_detail": "",
        "runtime_properties": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}, "metrics": NULL,
    }  # fmt: skip


def vdi_record(name: str, sr: str, vbd: str, size: int) -> dict[str, Any]:
    own = new_uuid()
    return {
        "uuid": own, "name_label": name, "name_description": "", "SR": sr, "VBDs": [vbd], "crash_dumps": [],
        "virtual_size": str(size), "physical_utilisation": str(size), "type": "user", "sharable": False,
        "read_only": False, "other_config": {}, "storage_lock": False, "location": own, "managed": True,
        "missing": False, "parent": NULL, "xenstore_data": {}, "sm_config": {},
    }  # fmt: skip


def vif_record(vm: str, network: str) -> dict[str, Any]:
    return {
        "uuid": new_uuid(), "device": "0", "network": network, "VM": vm, "MAC": "00:16:3e:12:34:56", "MTU": "1500",
        "other_config": {}, "currently_attached": False, "status_code": "0", "status_detail": "",
        "runtime_properties": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}, "metrics": NULL,
    }  # fmt: skip


def new_uuid() -> str:
    return str(uuid.uuid4())


def legacy(
    label: str, disks: Mapping[str, bytes], *, chunk: int = 1_000_000_000, memory: int = 256 << 20, hvm: bool = False
) -> bytes:
    """A legacy archive: disks by device (`xvda`), each in gzipped chunks of so many bytes."""
    vbds = "".join(
        f'<vbd device={quoteattr(device)} function="{"root" if number == 0 else "other"}" mode="rw" '
        f'vdi="vdi_{device}"/>'
        for number, device in enumerate(disks)
    )
    vdis = "".join(
        f'<vdi name="vdi_{device}" size="{len(content)}" source="file://{device}" type="dir-gzipped-chunks" '
        'variety="system"/>'
        for device, content in disks.items()
    )
    xml = (
        f'<?xml version="1.0" ?><appliance version="0.1"><vm name="vm"><label>{label}</label>'
        f'<shortdesc>made for a test</shortdesc><config mem_set="{memory}" vcpus="1" distrib="debian"/>'
        f'<hacks is_hvm="{str(hvm).lower()}" kernel_boot_cmdline="root=/dev/xvda ro"/>{vbds}</vm>{vdis}</appliance>'
    )
    members: list[Part] = [("ova.xml", xml.encode())]
    for device, content in disks.items():
        for number, offset in enumerate(range(0, max(len(content), 1), chunk)):
            members.append((f"{device}/chunk-{number:09d}.gz", gzip.compress(content[offset : offset + chunk], 1)))
    return tar(members)


_PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_MASK = (1 << 64) - 1


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0, from its published description. A tenth of a second or two for a MiB."""
    p1, p2, p3, p4, p5 = _PRIMES
    whole = len(data) // 32 * 32
    if whole:
        lanes = [(p1 + p2) & _MASK, p2, 0, -p1 & _MASK]
        words = memoryview(data)[:whole].cast("Q").tolist()
        for lane in range(4):
            value = lanes[lane]
            for word in words[lane::4]:
                value = value + word * p2 & _MASK
                value = ((value << 31 | value >> 33) & _MASK) * p1 & _MASK
            lanes[lane] = value
        total = sum(_rotated(value, bits) for value, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for value in lanes:
            total = ((total ^ _round(0, value)) * p1 + p4) & _MASK
    else:
        total = p5
    total = total + len(data) & _MASK
    rest = data[whole:]
    while len(rest) >= 8:
        total = _rotated(total ^ _round(0, int.from_bytes(rest[:8], "little")), 27) * p1 + p4 & _MASK
        rest = rest[8:]
    if len(rest) >= 4:
        total = _rotated(total ^ int.from_bytes(rest[:4], "little") * p1 & _MASK, 23) * p2 + p3 & _MASK
        rest = rest[4:]
    for byte in rest:
        total = _rotated(total ^ byte * p5 & _MASK, 11) * p1 & _MASK
    total = (total ^ total >> 33) * p2 & _MASK
    total = (total ^ total >> 29) * p3 & _MASK
    return total ^ total >> 32


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(value: int, word: int) -> int:
    return _rotated(value + word * _PRIMES[1] & _MASK, 31) * _PRIMES[0] & _MASK
