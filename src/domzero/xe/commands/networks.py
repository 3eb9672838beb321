"""Commands on networks, virtual cards, the host's interfaces, VLANs and bonds."""

from __future__ import annotations

from domzero.engine.errors import ApiError
from domzero.idl.types import INT
from domzero.xe.arguments import choice, each, flag, mapping, message, obj, objects, text, typed
from domzero.xe.command import Command
from domzero.xe.talk import Talk
from domzero.xe.values import number


async def _network_create(talk: Talk) -> None:
    line = talk.line
    record = {
        "name_label": line.need("name-label"), "name_description": line.get("name-description") or "",
        "MTU": number("MTU", line.get("MTU") or line.get("mtu") or "1500"),
        "other_config": line.mapping("other-config"),
        "bridge": line.get("bridge") or "", "managed": line.get("managed") is None or line.flag("managed"), "tags": [],
    }  # fmt: skip
    await talk.value(await talk.uuid("network", await talk.api.call("network.create", record)))


async def _vif_create(talk: Talk) -> None:
    line = talk.line
    mac = line.get("mac") or ""
    record = {
        "device": line.need("device"), "network": await talk.by_uuid("network", line.need("network-uuid")),
        "VM": await talk.by_uuid("VM", line.need("vm-uuid")), "MAC": "" if mac == "random" else mac,
        "MTU": number("mtu", line.get("mtu") or "0"), "other_config": {}, "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }  # fmt: skip
    await talk.value(await talk.uuid("VIF", await talk.api.call("VIF.create", record)))


async def _vif_unplug(talk: Talk) -> None:
    ref = await talk.by_uuid("VIF", talk.line.need("uuid"))
    await talk.api.call("VIF.unplug_force" if talk.line.flag("force") else "VIF.unplug", ref)


async def _vlan_create(talk: Talk) -> None:
    """A VLAN; what is printed is the interface that came to be with it."""
    line = talk.line
    interface, network = (
        await talk.by_uuid("PIF", line.need("pif-uuid")),
        await talk.by_uuid("network", line.need("network-uuid")),
    )
    vlan = await talk.api.call("VLAN.create", interface, number("vlan", line.need("vlan")), network)
    await talk.value(await talk.uuid("PIF", await talk.api.call("VLAN.get_untagged_PIF", vlan)))


async def _vlan_destroy(talk: Talk) -> None:
    """Remove a VLAN, named by itself or by its interface."""
    uuid = talk.line.need("uuid")
    try:
        vlan = await talk.by_uuid("VLAN", uuid)
    except ApiError as error:
        if error.code != "UUID_INVALID":
            raise
        vlan = await talk.api.call("PIF.get_VLAN_master_of", await talk.by_uuid("PIF", uuid))
    await talk.api.call("VLAN.destroy", vlan)


COMMANDS = (
    Command("network-create", "Make a network.", _network_create, ("name-label",),
            ("name-description", "MTU", "bridge", "managed", "other-config:"), ("network.create",), common=True),
    message("network-destroy", "Remove a network.", "network.destroy", obj("network"), common=True),
    Command("vif-create", "Give a machine a network card.", _vif_create, ("device", "network-uuid", "vm-uuid"),
            ("mac", "mtu"), ("VIF.create",)),
    message("vif-destroy", "Take a network card away.", "VIF.destroy", obj("VIF")),
    message("vif-plug", "Attach a network card to a running machine.", "VIF.plug", obj("VIF")),
    Command("vif-unplug", "Detach a network card from a running machine.", _vif_unplug, ("uuid",), ("force",),
            ("VIF.unplug", "VIF.unplug_force")),
    message("vif-move", "Move a network card to another network.", "VIF.move", obj("VIF"), obj("network",
            "network-uuid")),
    message("vif-configure-ipv4", "Set the address that the guest is told.", "VIF.configure_ipv4", obj("VIF"),
            choice("mode", "vif_ipv4_configuration_mode"), text("address", ""), text("gateway", "")),
    message("vif-configure-ipv6", "Set the IPv6 address that the guest is told.", "VIF.configure_ipv6", obj("VIF"),
            choice("mode", "vif_ipv6_configuration_mode"), text("address", ""), text("gateway", "")),
    Command("vlan-create", "Make a VLAN on an interface.", _vlan_create, ("pif-uuid", "vlan", "network-uuid"), (),
            ("VLAN.create",)),
    Command("vlan-destroy", "Remove a VLAN.", _vlan_destroy, ("uuid",), (), ("VLAN.destroy",)),
    message("pool-vlan-create", "Make a VLAN on every host.", "pool.create_VLAN_from_PIF", obj("PIF", "pif-uuid"),
            obj("network", "network-uuid"), typed("vlan", INT)),
    message("pif-plug", "Bring an interface up.", "PIF.plug", obj("PIF")),
    message("pif-unplug", "Take an interface down.", "PIF.unplug", obj("PIF")),
    message("pif-scan", "Look for new interfaces of a host.", "PIF.scan", obj("host", "host-uuid")),
    message("pif-introduce", "Make an interface known.", "PIF.introduce", obj("host", "host-uuid"), text("mac", ""),
            text("device"), flag("managed", True)),
    message("pif-forget", "Forget an interface.", "PIF.forget", obj("PIF")),
    message("pif-db-forget", "Take an interface out of the database, and leave the machine as it is.", "PIF.db_forget",
            obj("PIF"), hidden=True),
    message("pif-reconfigure-ip", "Set the address of an interface.", "PIF.reconfigure_ip", obj("PIF"),
            choice("mode", "ip_configuration_mode"), text("IP", ""), text("netmask", ""), text("gateway", ""),
            text("DNS", "")),
    message("pif-reconfigure-ipv6", "Set the IPv6 address of an interface.", "PIF.reconfigure_ipv6", obj("PIF"),
            choice("mode", "ipv6_configuration_mode"), text("IPv6", ""), text("gateway", ""), text("DNS", "")),
    message("pif-set-primary-address-type", "Choose which address an interface is known by.",
            "PIF.set_primary_address_type", obj("PIF"), choice("primary_address_type", "primary_address_type")),
    message("bond-create", "Join interfaces to one.", "Bond.create", obj("network", "network-uuid"),
            objects("PIF", "pif-uuids"), text("mac", ""), choice("mode", "bond_mode", "balance-slb"),
            mapping("properties")),
    message("bond-destroy", "Take a bond apart.", "Bond.destroy", obj("Bond")),
    message("bond-set-mode", "Change how a bond shares its work.", "Bond.set_mode", obj("Bond"),
            choice("mode", "bond_mode")),
    message("tunnel-create", "Make a tunnel between hosts.", "tunnel.create", obj("PIF", "pif-uuid"),
            obj("network", "network-uuid"), choice("protocol", "tunnel_protocol", "gre")),
    message("tunnel-destroy", "Remove a tunnel.", "tunnel.destroy", obj("tunnel")),
    message("network-sriov-create", "Share a card among guests in hardware.", "network_sriov.create",
            obj("PIF", "pif-uuid"), obj("network", "network-uuid")),
    message("network-sriov-destroy", "Share it no more.", "network_sriov.destroy", obj("network_sriov")),
    message("pool-management-reconfigure", "Move the management of all hosts to another network.",
            "pool.management_reconfigure", obj("network", "network-uuid")),
    each("host-get-management-interface", "Show the interface that a host is managed by.", "host",
         "host.get_management_interface", hidden=True),
)  # fmt: skip
