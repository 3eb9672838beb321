"""Failures of disks' content in the documented form."""

from __future__ import annotations

from typing import Final

from domzero.engine.errors import ApiError
from domzero.host.contents.protocol import ContentError, MediumFullError
from domzero.host.storage.protocol import StorageError
from domzero.toolstack.storage.repositories import backend_failure

NO_SPACE: Final = 44
"""The number by which storage drivers say that a medium is full."""


def content_failure(error: ContentError) -> ApiError:
    """A full medium as storage drivers tell it, anything else as SR_BACKEND_FAILURE with the reason."""
    if isinstance(error, MediumFullError):
        return backend_failure(StorageError(NO_SPACE, str(error)))
    return ApiError("SR_BACKEND_FAILURE", "", "", str(error))
