"""Failures of disks' content in the documented form."""

from __future__ import annotations

from domzero.engine.errors import ApiError
from domzero.host.contents.protocol import ContentError, MediumFullError
from domzero.toolstack.storage.disks import NO_SPACE


def content_failure(error: ContentError) -> ApiError:
    """A full medium as storage drivers tell it, anything else as SR_BACKEND_FAILURE with the reason."""
    if isinstance(error, MediumFullError):
        return ApiError(NO_SPACE, "", str(error), "")
    return ApiError("SR_BACKEND_FAILURE", "", "", str(error))
