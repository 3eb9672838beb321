"""Archives of before XenServer 4.0, told as those of today, so that everything behind treats them alike. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from domzero.toolstack.vm.device_names import parse_vbd_position
from domzero.wire.xva.model import Appliance, ApplianceVdi, ApplianceVm, ArchivedObject, ArchiveVersion, Manifest

OLDEST = ArchiveVersion("", "", "", "XenSource", "", 0, 0, 0)


def manifest_of(appliance: Appliance) -> tuple[Manifest, Mapping[str, str]]:
    """The appliance's machines and disks as objects, and the identifier of each disk by the directory it is in.

    A machine is called "<label> import". It boots what its root disk boots, as Xen's pygrub did, unless it was fully
    virtual.
    """
    disks = {vdi.name: f"Ref:{number}" for number, vdi in enumerate(appliance.vdis)}
    objects = [_disk(disks[vdi.name], vdi) for vdi in appliance.vdis]
    for vm in appliance.vms:
        objects += _machine(len(objects), vm, disks)
    return Manifest(OLDEST, tuple(objects)), {vdi.directory: disks[vdi.name] for vdi in appliance.vdis}


def _disk(id: str, vdi: ApplianceVdi) -> ArchivedObject:
    fields = {"name_label": vdi.name, "virtual_size": str(vdi.size), "type": "user"}
    return ArchivedObject("VDI", id, fields)


def _machine(first: int, vm: ApplianceVm, disks: Mapping[str, str]) -> Iterator[ArchivedObject]:
    memory, vcpus = str(vm.memory), str(max(1, vm.vcpus))
    fields: dict[str, Any] = {
        "name_label": f"{vm.label or vm.name} import",
        "name_description": vm.description,
        "memory_static_max": memory,
        "memory_dynamic_max": memory,
        "memory_dynamic_min": memory,
        "VCPUs_max": vcpus,
        "VCPUs_at_startup": vcpus,
        "HVM_boot_policy": "BIOS order" if vm.is_hvm else "",
        "HVM_boot_params": {"order": "cd"} if vm.is_hvm else {},
        "PV_bootloader": "" if vm.is_hvm else "pygrub",
        "PV_args": vm.kernel_boot_cmdline,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
    }
    machine = f"Ref:{first}"
    yield ArchivedObject("VM", machine, fields)
    for number, vbd in enumerate(vm.vbds, first + 1):
        position = parse_vbd_position(vbd.device)
        yield ArchivedObject("VBD", f"Ref:{number}", {
            "VM": machine,
            "VDI": disks[vbd.vdi],
            "userdevice": vbd.device if position is None else str(position),
            "bootable": vbd.function == "root",
            "mode": "RW" if vbd.writable else "RO",
            "type": "Disk",
            "empty": False,
            "unpluggable": True,
        })  # fmt: skip
