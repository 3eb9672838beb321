"""Setting a drive's limits (`disk_limits`), at once where its machine runs."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.idl.types import Ref
from domzero.toolstack.hotplug import attaching
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.disk_limits import limits_at_start, limits_of


@implements("VBD.set_qos_algorithm_type")
async def set_qos_algorithm_type(stack: Stack, context: Context, self: Ref, value: str) -> None:
    """Choose `ionice`, `ratelimit`, or none with an empty text. Raises INVALID_VALUE, also for parameters there."""
    await _limit(stack, self, value, stack.database.get("VBD", self, "qos_algorithm_params"))


@implements("VBD.set_qos_algorithm_params")
async def set_qos_algorithm_params(stack: Stack, context: Context, self: Ref, value: dict[str, str]) -> None:
    """Set all parameters. Raises INVALID_VALUE for one that the present algorithm knows with another kind of value."""
    await _limit(stack, self, stack.database.get("VBD", self, "qos_algorithm_type"), value)


@implements("VBD.add_to_qos_algorithm_params")
async def add_to_qos_algorithm_params(stack: Stack, context: Context, self: Ref, key: str, value: str) -> None:
    """Set one parameter. Raises MAP_DUPLICATE_KEY for one that is there, INVALID_VALUE."""
    record = stack.database.record("VBD", self)
    params = record["qos_algorithm_params"]
    if key in params:
        raise ApiError("MAP_DUPLICATE_KEY", "VBD", "qos_algorithm_params", self, key)
    await _limit(stack, self, record["qos_algorithm_type"], {**params, key: value})


@implements("VBD.remove_from_qos_algorithm_params")
async def remove_from_qos_algorithm_params(stack: Stack, context: Context, self: Ref, key: str) -> None:
    """Take one parameter away; no error when it is not there."""
    record = stack.database.record("VBD", self)
    params = {name: value for name, value in record["qos_algorithm_params"].items() if name != key}
    await _limit(stack, self, record["qos_algorithm_type"], params)


async def _limit(stack: Stack, vbd: Ref, algorithm: str, params: Mapping[str, str]) -> None:
    """The row follows the hypervisor: what it refuses is not recorded."""
    limits = limits_of(algorithm, params)
    vm = stack.database.get("VBD", vbd, "VM")
    async with stack.machines.turn(vm) as machine:
        drive = stack.database.record("VBD", vbd)
        runs = machine.domain is not None and not machine.domain.ended.done()
        if runs and drive["currently_attached"] and limits != limits_at_start(drive):
            domid = stack.machines.living(machine).domid
            await attaching(vm, "VBD", vbd, stack.hypervisor.limit_disk(domid, int(drive["userdevice"]), limits))
        with stack.database.transaction() as transaction:
            transaction.update("VBD", vbd, qos_algorithm_type=algorithm, qos_algorithm_params=dict(params))
