"""Default templates: the rows of `template_rows` as VM objects, made and refreshed at each start."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import quoteattr

from domzero.engine.transactions import Transaction
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack, StackSettings
from domzero.toolstack.vm.device_names import VBD_POSITIONS, VIF_POSITIONS
from domzero.toolstack.vm.disk_plan import PlannedDisk, write_disk_plan
from domzero.toolstack.vm.template_rows import TEMPLATES, BootMethod, TemplateRow

REVISION = "template_revision"
"""The other_config key that tells which form of its row a template was made from."""
TEMPLATE_ONLY = ("default_template", "xensource_internal", REVISION)
"""What a template's other_config says of the template itself, not of machines made from it."""


def ensure_templates(stack: Stack) -> None:
    """Make the default templates that are missing, bring those whose row has changed up to date, remove retired ones.

    What clients changed stays as they left it until the row changes; keys that they added to `other_config` stay even
    then. Gates are not refreshed: this runs before they are.
    """
    database = stack.database
    present = {
        row.record["reference_label"]: ref
        for ref, row in database.rows("VM").items()
        if row.record["is_default_template"] and row.record["is_a_template"]
    }
    with database.transaction() as transaction:
        for row in offered(stack.settings):
            ref = present.pop(row.key, None)
            if ref is None:
                _add(transaction, row, stack.settings)
            else:
                _refresh(stack, transaction, ref, row)
        for ref in present.values():
            _retire(stack, transaction, ref)


def offered(settings: StackSettings) -> Iterator[TemplateRow]:
    """The templates that this host can have."""
    for row in TEMPLATES:
        if row.boot is not BootMethod.KERNEL or settings.guest_kernel is not None:
            yield row


def template_fields(row: TemplateRow, settings: StackSettings) -> dict[str, Any]:
    """The VM fields that follow from the row; the same row and settings always give the same fields."""
    fields: dict[str, Any] = {
        "name_label": row.name,
        "name_description": row.description,
        "reference_label": row.key,
        "is_a_template": True,
        "is_default_template": True,
        "power_state": "Halted",
        "user_version": 1,
        "memory_static_min": row.memory_min,
        "memory_dynamic_min": row.memory,
        "memory_dynamic_max": row.memory,
        "memory_static_max": row.memory,
        "memory_target": row.memory,
        "VCPUs_max": row.vcpus,
        "VCPUs_at_startup": row.vcpus,
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "recommendations": recommendations(row),
        "domid": -1,
        **_boot_fields(row, settings),
    }
    fields["other_config"] = _other_config(row)
    fields["other_config"][REVISION] = _revision(fields)
    return fields


def recommendations(row: TemplateRow) -> str:
    """Limits for clients to keep to, as the XML that XenServer's clients read."""
    limits = {
        'field="memory-static-max"': row.memory_max,
        'field="vcpus-max"': row.vcpus_max,
        'property="number-of-vbds"': VBD_POSITIONS,
        'property="number-of-vifs"': VIF_POSITIONS,
    }
    rows = "".join(f"<restriction {about} max={quoteattr(str(limit))}/>" for about, limit in limits.items())
    least = f'<restriction field="memory-static-min" min={quoteattr(str(row.memory_min))}/>'
    vendor = '<restriction field="has-vendor-device" value="false"/>'
    return f"<restrictions>{rows}{least}{vendor}</restrictions>"


def _boot_fields(row: TemplateRow, settings: StackSettings) -> dict[str, Any]:
    if row.boot is BootMethod.KERNEL:
        return {
            "domain_type": "pv",
            "PV_kernel": str(settings.guest_kernel or ""),
            "PV_ramdisk": str(settings.guest_ramdisk or ""),
            "PV_args": row.kernel_arguments,
            "platform": {"acpi": "1", "apic": "true", "pae": "true", "nx": "true"},
        }
    firmware = {"firmware": "uefi"} if row.boot is BootMethod.UEFI else {"firmware": "bios"}
    return {
        "domain_type": "hvm",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": row.boot_order, **firmware},
        "platform": {
            "acpi": "1",
            "apic": "true",
            "pae": "true",
            "nx": "true",
            "hpet": "true",
            "viridian": str(row.windows).lower(),
            "stdvga": "true",
        },
    }


def _other_config(row: TemplateRow) -> dict[str, str]:
    config = {"default_template": "true"}
    if row.disks:
        config["disks"] = write_disk_plan(
            PlannedDisk(str(position), size, bootable=position == 0) for position, size in enumerate(row.disks)
        )
    if row.distro:
        config["linux_template"] = "true"
        config["install-distro"] = row.distro
    if row.release:
        config["debian-release"] = row.release
    if row.install_methods:
        config["install-methods"] = ",".join(row.install_methods)
        config["install-arch"] = "x86_64"
    return config


def _revision(fields: Mapping[str, Any]) -> str:
    text = repr(sorted(fields.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _add(transaction: Transaction, row: TemplateRow, settings: StackSettings) -> None:
    fields = template_fields(row, settings)
    fields["other_config"] = {**fields["other_config"], "mac_seed": str(uuid4())}
    fields["metrics"] = transaction.create("VM_metrics", {})
    transaction.create("VM", fields)


def _refresh(stack: Stack, transaction: Transaction, ref: Ref, row: TemplateRow) -> None:
    fields = template_fields(row, stack.settings)
    present = stack.database.get("VM", ref, "other_config")
    if present.get(REVISION) == fields["other_config"][REVISION]:
        return
    fields["other_config"] = {**present, **fields["other_config"]}
    transaction.update("VM", ref, **fields)


def _retire(stack: Stack, transaction: Transaction, ref: Ref) -> None:
    """Remove a default template that is not offered any more; one that clients gave devices becomes theirs."""
    record = stack.database.record("VM", ref)
    if record["VBDs"] or record["VIFs"]:
        config = {key: value for key, value in record["other_config"].items() if key not in TEMPLATE_ONLY}
        transaction.update("VM", ref, is_default_template=False, other_config=config)
        return
    if record["metrics"] != NULL_REF and stack.database.find("VM_metrics", record["metrics"]):
        transaction.destroy("VM_metrics", record["metrics"])
    transaction.destroy("VM", ref)
