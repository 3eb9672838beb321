"""A machine that boots its installer once, and its disk from then on."""

from __future__ import annotations

from tests.toolstack.vm.install.repository import BOOT_HEADER, repository, served
from tests.toolstack.vm.world import World


async def test_the_first_boot_is_the_installers(host: World) -> None:
    with served(repository("red-hat", BOOT_HEADER, b"ramdisk")) as (url, _):
        config = {"install-repository": url, "install-distro": "rhlike"}
        vm = await host.machine(PV_kernel="", PV_ramdisk="", other_config=config)
        await host.call("VM.start", vm, False, False)
    booted = await host.call("VM.get_boot_record", vm)
    guest = host.stack.settings.state_dir / "guest" / host.get("VM", vm, "uuid")
    assert booted["PV_kernel"] == str(guest / "linux")
    assert host.get("VM", vm, "PV_kernel") == ""
    await host.call("VM.suspend", vm)
    await host.call("VM.resume", vm, False, False)
    await host.call("VM.hard_reboot", vm)
    assert (await host.call("VM.get_boot_record", vm))["PV_kernel"] == ""
    await host.call("VM.hard_shutdown", vm)
    await host.call("VM.destroy", vm)
    assert not guest.exists()


async def test_an_installer_that_cannot_be_had(host: World) -> None:
    config = {"install-repository": "http://127.0.0.1:9/", "install-distro": "rhlike"}
    vm = await host.machine(other_config=config)
    assert (await host.fails("VM.start", vm, False, False))[:2] == ("BOOTLOADER_FAILED", vm)
    assert (host.power_state(vm), host.domids(), host.cards()) == ("Halted", set(), set())
