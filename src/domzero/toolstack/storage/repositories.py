"""What the messages about SRs, PBDs and VDIs share: drivers, attached repositories, errors, sizes."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from domzero.engine.errors import ApiError
from domzero.host.storage.protocol import DiskInfo, Repository, StorageDriver, StorageError
from domzero.idl.types import Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage.device_secrets import with_secrets

Result = TypeVar("Result")


def driver_for(stack: Stack, type: str) -> StorageDriver:
    """The driver of an SR type. Raises SR_UNKNOWN_DRIVER."""
    try:
        return stack.storage[type]
    except KeyError:
        raise ApiError("SR_UNKNOWN_DRIVER", type) from None


def this_host_pbd(stack: Stack, sr: Ref) -> Ref | None:
    """The PBD that connects this host to the repository, if there is one."""
    database = stack.database
    return next((pbd for pbd in database.get("SR", sr, "PBDs") if database.get("PBD", pbd, "host") == stack.host), None)


def repository_of(stack: Stack, sr: Ref, pbd: Ref) -> Repository:
    """What a driver needs to know of a repository."""
    record = stack.database.record("SR", sr)
    config = with_secrets(stack.database, stack.database.get("PBD", pbd, "device_config"))
    return Repository(record["uuid"], config, record["sm_config"])


def attached(stack: Stack, sr: Ref) -> tuple[StorageDriver, Repository]:
    """Driver and repository of an SR that is plugged here. Raises SR_HAS_NO_PBDS or SR_NOT_ATTACHED."""
    record = stack.database.record("SR", sr)
    pbd = this_host_pbd(stack, sr)
    if pbd is None:
        raise ApiError("SR_HAS_NO_PBDS", sr)
    if not stack.database.get("PBD", pbd, "currently_attached"):
        raise ApiError("SR_NOT_ATTACHED", sr)
    return driver_for(stack, record["type"]), repository_of(stack, sr, pbd)


def backend_failure(error: StorageError) -> ApiError:
    """The documented form of what a driver said: SR_BACKEND_FAILURE_<number> [status, text, menu]."""
    return ApiError(f"SR_BACKEND_FAILURE_{error.number}", "", error.text, error.menu)


async def asking(answer: Awaitable[Result]) -> Result:
    """What a driver answers, its errors in the documented form."""
    try:
        return await answer
    except StorageError as error:
        raise backend_failure(error) from error


async def refresh_size(stack: Stack, sr: Ref) -> None:
    """Bring the SR's three sizes up to date: what the row says then was measured after this was called."""
    await stack.measurements.share(sr, lambda: _measure(stack, sr))


async def _measure(stack: Stack, sr: Ref) -> None:
    driver, repository = attached(stack, sr)
    size = await asking(driver.size(repository))
    if stack.database.find("SR", sr) is None:
        return
    with stack.database.transaction(observed=True) as transaction:
        transaction.update(
            "SR",
            sr,
            physical_size=size.physical_size,
            physical_utilisation=size.physical_utilisation,
            virtual_allocation=size.virtual_allocation,
        )


def measured(record: Mapping[str, Any], disk: DiskInfo) -> dict[str, Any]:
    """What a VDI row is to say of a disk as the medium has it; `record` is what it said before."""
    return {
        "virtual_size": disk.virtual_size,
        "physical_utilisation": disk.physical_utilisation,
        "sm_config": {**record["sm_config"], **disk.sm_config},
        "xenstore_data": {**record["xenstore_data"], **disk.xenstore_data},
    }


def assert_uuid(text: str) -> None:
    """Raises INVALID_VALUE for the uuid of an object to be introduced that is none, or spelt in another way."""
    try:
        spelt = str(UUID(text))
    except ValueError:
        spelt = ""
    if spelt != text:
        raise ApiError("INVALID_VALUE", "uuid", text)
