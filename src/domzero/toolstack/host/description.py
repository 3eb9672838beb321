"""What the host's rows say, from what was measured: pure functions.

Clients decide by these versions which calls they dare to make. domzero carries the API of XenServer 8, so it shows the
version numbers that go with that API, and its own name and version beside them (docs/decisions/0010).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.host.hypervisor.protocol import Capabilities
from domzero.host.metrics.protocol import MachineInfo, Processor

API_VERSION = (2, 21)
PRODUCT_VERSION = "8.4.0"
PLATFORM_VERSION = "3.4.0"
XAPI_VERSION = "24.19.0"


def host_fields(machine: MachineInfo, capabilities: Capabilities, version: str, backend: str) -> dict[str, Any]:
    """The fields of the host object that are measured anew at each start."""
    return {
        "hostname": machine.hostname,
        "API_version_major": API_VERSION[0],
        "API_version_minor": API_VERSION[1],
        "API_version_vendor": "domzero",
        "API_version_vendor_implementation": {"domzero": version},
        "software_version": software_version(machine, capabilities, version, backend),
        "capabilities": guest_types(capabilities),
        "cpu_info": cpu_info(machine.processors),
        "cpu_configuration": {"nr_cpus": str(len(machine.processors)), "accelerator": capabilities.accelerator},
        "sched_policy": "cfs",
        "supported_bootloaders": ("pygrub", "eliloader"),
        "license_params": {"sku_type": "free", "expiry": "20991231T23:59:59Z"},
        "edition": "free",
        "editions": ("free",),
        "bios_strings": {"bios-vendor": "domzero", "system-manufacturer": "domzero", "system-product-name": "domzero"},
        "chipset_info": {"iommu": "false"},
        "virtual_hardware_platform_versions": (0, 1, 2),
        "ssl_legacy": False,
    }


def software_version(machine: MachineInfo, capabilities: Capabilities, version: str, backend: str) -> dict[str, str]:
    """`host.software_version`: the keys that clients read, and what really runs here."""
    return {
        "product_brand": "domzero",
        "product_version": PRODUCT_VERSION,
        "product_version_text": PRODUCT_VERSION,
        "product_version_text_short": PRODUCT_VERSION,
        "platform_name": "domzero",
        "platform_version": PLATFORM_VERSION,
        "build_number": version,
        "domzero": version,
        "xapi": XAPI_VERSION,
        "linux": machine.kernel,
        "hypervisor": capabilities.name,
        "hypervisor_version": capabilities.version,
        "accelerator": capabilities.accelerator,
        "accelerator_reason": capabilities.accelerator_reason,
        "network_backend": backend,
    }


def guest_types(capabilities: Capabilities) -> tuple[str, ...]:
    """`host.capabilities`: which kinds of guest start here, in XenServer's words."""
    return tuple(
        word
        for architecture in capabilities.architectures
        for word in (f"hvm-3.0-{architecture}", f"xen-3.0-{architecture}")
    )


def cpu_info(processors: tuple[Processor, ...]) -> dict[str, str]:
    """`host.cpu_info`: one description for all processors, which are taken to be alike."""
    first = processors[0]
    cores = {(processor.socket, processor.core) for processor in processors}
    return {
        "cpu_count": str(len(processors)),
        "socket_count": str(len({processor.socket for processor in processors})),
        "threads_per_core": str(len(processors) // len(cores)),
        "vendor": first.vendor,
        "speed": str(first.speed),
        "modelname": first.model_name,
        "family": str(first.family),
        "model": str(first.model),
        "stepping": first.stepping,
        "flags": first.flags,
        "features": "",
        "features_pv": "",
        "features_hvm": "",
    }


def processor_fields(processor: Processor) -> Mapping[str, Any]:
    """The fields of a host_cpu object."""
    return {
        "number": processor.number,
        "vendor": processor.vendor,
        "speed": processor.speed,
        "modelname": processor.model_name,
        "family": processor.family,
        "model": processor.model,
        "stepping": processor.stepping,
        "flags": processor.flags,
    }
