"""Passwords that a device_config only refers to."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.host.storage.protocol import ProbedRepository, Repository
from domzero.host.storage.sim import SimStorage
from tests.toolstack.storage.test_probing import Probing
from tests.toolstack.vm.world import World


class Locked(Probing):
    """Storage that notes which password it was shown."""

    shown: list[str | None]

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:
        self.shown.append(device_config.get("password"))
        return []

    async def attach(self, repository: Repository) -> None:
        self.shown.append(repository.device_config.get("password"))
        await SimStorage.attach(self, repository)


async def test_the_driver_gets_the_value_and_clients_see_the_reference(host: World) -> None:
    locked = Locked(host.clock, host.stack.settings.state_dir / "storage")
    locked.shown = []
    host.stack.storage = {**host.stack.storage, "file": locked}
    secret = await host.call("secret.create", {"value": "open sesame", "other_config": {}})
    config = {"location": "/sim", "password_secret": host.get("secret", secret, "uuid")}
    await host.call("SR.probe", host.stack.host, config, "file", {})
    sr = await host.call("SR.create", host.stack.host, config, "0", "n", "", "file", "", False, {})
    assert locked.shown == ["open sesame", "open sesame"]
    (pbd,) = host.get("SR", sr, "PBDs")
    assert host.get("PBD", pbd, "device_config") == config
    await host.call("PBD.unplug", pbd)
    await host.call("secret.destroy", secret)
    assert (await host.fails("PBD.plug", pbd))[0] == "SR_BACKEND_FAILURE_20"
    assert (await host.fails("SR.probe", host.stack.host, config, "file", {}))[0] == "SR_BACKEND_FAILURE_20"
    before = host.stack.database.refs("SR")
    error = await host.fails("SR.create", host.stack.host, config, "0", "n", "", "file", "", False, {})
    assert error[0] == "SR_BACKEND_FAILURE_20"
    assert host.stack.database.refs("SR") == before
