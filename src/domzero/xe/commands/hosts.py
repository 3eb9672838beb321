"""Commands on hosts and on the pool."""

from __future__ import annotations

from domzero.xe.arguments import (
    content,
    each,
    file_name,
    flag,
    for_each,
    host,
    integer,
    mapping,
    message,
    obj,
    objects,
    text,
)
from domzero.xe.command import Command
from domzero.xe.commands.power import demand_force
from domzero.xe.talk import Talk
from domzero.xe.view import Object


async def _forget(talk: Talk) -> None:
    ref = await talk.by_uuid("host", talk.line.need("uuid"))
    demand_force(talk, "A host that is forgotten takes its local repositories and what was resident on it with it.")
    await talk.api.call("host.destroy", ref)


async def _prevented(talk: Talk) -> None:
    ref = await talk.by_uuid("host", talk.line.need("uuid"))
    found = await talk.api.call("host.get_vms_which_prevent_evacuation", ref)
    if found:
        pairs = [(await talk.uuid("VM", machine), f"[ {'; '.join(reason)} ]") for machine, reason in found.items()]
        await talk.record(pairs)
    else:
        await talk.empty()


async def _cpu_info(talk: Talk) -> None:
    ref = await host("uuid").convert(talk, talk.line)
    info = await talk.api.call("host.get_cpu_info", ref)
    await talk.record(list(info.items()))


async def _license(talk: Talk) -> None:
    ref = await host().convert(talk, talk.line)
    await talk.record(list((await talk.api.call("host.get_license_params", ref)).items()))


async def _upload_crash(talk: Talk) -> None:
    dump = await talk.by_uuid("host_crashdump", talk.line.need("uuid"))
    await talk.api.call("host_crashdump.upload", dump, *_destination(talk))


async def _upload_report(talk: Talk, ref: str, _: Object) -> None:
    await talk.api.call("host.bugreport_upload", ref, *_destination(talk))


def _destination(talk: Talk) -> tuple[str, dict[str, str]]:
    """Where something is to be sent, and the options of that."""
    proxy = talk.line.get("http_proxy")
    return talk.line.get("url") or "", {} if proxy is None else {"http_proxy": proxy}


async def _designate(talk: Talk) -> None:
    await talk.api.call("pool.designate_new_master", await talk.by_uuid("host", talk.line.need("host-uuid")))


async def _evacuate(talk: Talk, ref: str, _: Object) -> None:
    network = await obj("network", "network-uuid", optional=True).convert(talk, talk.line)
    await talk.api.call("host.evacuate", ref, network, await integer("batch-size", 0).convert(talk, talk.line))


COMMANDS = (
    each("host-disable", "Let no more machines start on a host.", "host", "host.disable", optional="auto-enable"),
    each("host-enable", "Let machines start on a host again.", "host", "host.enable"),
    each("host-shutdown", "Switch hosts off.", "host", "host.shutdown"),
    each("host-reboot", "Start hosts anew.", "host", "host.reboot"),
    each("host-power-on", "Switch hosts on.", "host", "host.power_on"),
    each("host-dmesg", "Show the messages of a host's kernel.", "host", "host.dmesg"),
    each("host-sync-data", "Bring the data of hosts in line.", "host", "host.sync_data"),
    each("host-all-editions", "Show the editions there are.", "host", "host.get_editions"),
    each("host-compute-free-memory", "Tell how much memory is free.", "host", "host.compute_free_memory"),
    each("host-compute-memory-overhead", "Tell how much memory a host takes for itself.", "host",
         "host.compute_memory_overhead"),
    each("host-get-system-status-capabilities", "Show what a report of the system may contain.", "host",
         "host.get_system_status_capabilities"),
    each("host-set-hostname-live", "Rename a host.", "host", "host.set_hostname_live", text("host-name")),
    each("host-set-power-on-mode", "Say how a host is switched on from afar.", "host", "host.set_power_on_mode",
         text("power-on-mode"), mapping("power-on-config")),
    for_each("host-bugreport-upload", "Send a report.", "host", _upload_report, (), ("url", "http_proxy"),
             ("host.bugreport_upload",)),
    each("host-get-server-certificate", "Show the certificate of a host.", "host", "host.get_server_certificate"),
    each("host-reset-server-certificate", "Make a new certificate.", "host", "host.reset_server_certificate"),
    each("host-apply-edition", "Choose the edition.", "host", "host.apply_edition", text("edition"), flag("force"),
         optional="license-server-address license-server-port"),
    each("host-enable-local-storage-caching", "Keep copies of shared disks on a host.", "host",
         "host.enable_local_storage_caching", obj("SR", "sr-uuid")),
    each("host-disable-local-storage-caching", "Keep no more copies.", "host", "host.disable_local_storage_caching"),
    Command("host-forget", "Forget a host that is gone for good.", _forget, ("uuid",), ("force",), ("host.destroy",)),
    for_each("host-evacuate", "Move every machine elsewhere.", "host", _evacuate, (), ("network-uuid", "batch-size"),
             ("host.evacuate",)),
    Command("host-get-vms-which-prevent-evacuation", "Show which machines cannot leave a host, and why.", _prevented,
            ("uuid",), (), ("host.get_vms_which_prevent_evacuation",)),
    message("host-get-uncooperative-vms", "Show which machines do not give memory back.",
            "host.get_uncooperative_resident_VMs", obj("host")),
    message("host-syslog-reconfigure", "Have the setting for logs take effect.", "host.syslog_reconfigure",
            obj("host", "host-uuid")),
    message("host-management-reconfigure", "Manage the host by another interface.", "host.management_reconfigure",
            obj("PIF", "pif-uuid")),
    message("host-management-disable", "Let the host be managed from itself only.", "host.management_disable"),
    message("host-emergency-management-reconfigure", "Manage the host by another interface, without the pool.",
            "host.local_management_reconfigure", text("interface")),
    message("host-emergency-ha-disable", "Leave high availability, without the pool.", "host.emergency_ha_disable",
            flag("soft"), optional="force"),
    message("host-shutdown-agent", "Stop the toolstack; machines go on.", "host.shutdown_agent"),
    message("host-call-plugin", "Call a plug-in of a host.", "host.call_plugin", obj("host", "host-uuid"),
            text("plugin"), text("fn"), mapping("args")),
    message("host-send-debug-keys", "Send keys to the hypervisor.", "host.send_debug_keys", obj("host", "host-uuid"),
            text("keys")),
    message("host-enable-display", "Show the console on the screen.", "host.enable_display", obj("host")),
    message("host-disable-display", "Show nothing on the screen.", "host.disable_display", obj("host")),
    message("host-declare-dead", "Say that a host has ceased to run.", "host.declare_dead", obj("host")),
    message("host-crashdump-destroy", "Remove what was kept of a host's crash.", "host_crashdump.destroy",
            obj("host_crashdump")),
    Command("host-crashdump-upload", "Send what was kept of a host's crash.", _upload_crash, ("uuid",),
            ("url", "http_proxy"), ("host_crashdump.upload",)),
    Command("host-cpu-info", "Show the processors of a host.", _cpu_info, (), ("uuid",), ("host.get_cpu_info",)),
    Command("host-license-view", "Show the licence of a host.", _license, (), ("host-uuid",),
            ("host.get_license_params",)),
    Command("pool-designate-new-master", "Make another host the coordinator.", _designate, ("host-uuid",), (),
            ("pool.designate_new_master",)),
    message("pool-sync-database", "Write the database to every host.", "pool.sync_database"),
    message("pool-recover-slaves", "Call back the hosts that wait for the coordinator.", "pool.recover_slaves"),
    message("pool-eject", "Put a host out of the pool.", "pool.eject", obj("host", "host-uuid"), optional="force"),
    message("pool-join", "Join another pool.", "pool.join", text("master-address"), text("master-username"),
            text("master-password"), optional="force"),
    message("pool-emergency-reset-master", "Follow another coordinator.", "pool.emergency_reset_master",
            text("master-address")),
    message("pool-emergency-transition-to-master", "Be the coordinator from now on.",
            "pool.emergency_transition_to_master"),
    message("pool-ha-enable", "Start machines elsewhere when their host fails.", "pool.enable_ha",
            objects("SR", "heartbeat-sr-uuids", optional=True), mapping("ha-config")),
    message("pool-ha-disable", "Leave machines stopped when their host fails.", "pool.disable_ha"),
    message("pool-ha-prevent-restarts-for", "Start no machines for some time.", "pool.ha_prevent_restarts_for",
            integer("seconds"), hidden=True),
    message("pool-ha-compute-max-host-failures-to-tolerate", "Tell how many hosts may fail.",
            "pool.ha_compute_max_host_failures_to_tolerate"),
    message("pool-enable-redo-log", "Keep every change of the database in a repository.", "pool.enable_redo_log",
            obj("SR", "sr-uuid")),
    message("pool-disable-redo-log", "Keep them no more.", "pool.disable_redo_log"),
    message("pool-enable-local-storage-caching", "Keep copies of shared disks on all hosts.",
            "pool.enable_local_storage_caching", obj("pool")),
    message("pool-disable-local-storage-caching", "Keep no more copies.", "pool.disable_local_storage_caching",
            obj("pool")),
    message("pool-enable-tls-verification", "Check certificates between hosts.", "pool.enable_tls_verification"),
    message("pool-secret-rotate", "Renew the secret that hosts share.", "pool.rotate_secret"),
    message("pool-send-test-post", "Send a test to another host.", "pool.send_test_post", text("dest-host"),
            integer("dest-port"), text("body")),
    message("pool-certificate-list", "List the certificates trusted.", "pool.certificate_list"),
    message("pool-certificate-sync", "Give all hosts the certificates trusted.", "pool.certificate_sync"),
    message("pool-certificate-install", "Trust a certificate.", "pool.certificate_install", file_name("filename"),
            content("filename")),
    message("pool-install-ca-certificate", "Trust an authority.", "pool.install_ca_certificate", file_name("filename"),
            content("filename")),
    message("pool-crl-install", "Keep a list of revocations.", "pool.crl_install", file_name("filename"),
            content("filename")),
    message("pool-certificate-uninstall", "Trust a certificate no more.", "pool.certificate_uninstall", text("name")),
    message("pool-uninstall-ca-certificate", "Trust an authority no more.", "pool.uninstall_ca_certificate",
            text("name"), optional="force"),
    message("pool-crl-list", "List the revocations kept.", "pool.crl_list"),
    message("pool-crl-uninstall", "Remove a list of revocations.", "pool.crl_uninstall", text("name")),
    message("patch-destroy", "Remove a patch.", "pool_patch.destroy", obj("pool_patch")),
    message("patch-precheck", "Check whether a patch fits.", "pool_patch.precheck", obj("pool_patch"),
            obj("host", "host-uuid")),
    message("patch-apply", "Apply a patch to a host.", "pool_patch.apply", obj("pool_patch"), obj("host", "host-uuid")),
    message("patch-pool-apply", "Apply a patch to all hosts.", "pool_patch.pool_apply", obj("pool_patch")),
    message("patch-clean", "Remove the files of a patch.", "pool_patch.clean", obj("pool_patch")),
    message("patch-pool-clean", "Remove the files of a patch everywhere.", "pool_patch.pool_clean", obj("pool_patch")),
    message("host-restart-agent", "Start the toolstack anew.", "host.restart_agent", host(), hidden=True),
)  # fmt: skip
