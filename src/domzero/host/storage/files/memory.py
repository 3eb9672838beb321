"""Memory images in a repository's directory: `<uuid>.memory`, plain files that a hypervisor fills. Blocking."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from domzero.host.storage.numbers import from_os
from domzero.host.storage.protocol import DiskInfo
from domzero.host.storage.uuids import UUID

IMAGE_NAME = re.compile(rf"({UUID})\.memory", re.ASCII)


def image_name(uuid: str) -> str:
    """The file that holds an image."""
    return f"{uuid}.memory"


def find_image(directory: Path, uuid: str) -> DiskInfo | None:
    """The image of that uuid as it is now, its virtual size being the file's length; None when there is none.

    A name that stands for anything but a plain file is none.
    """
    try:
        status = os.lstat(directory / image_name(uuid))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os(error) from error
    if not stat.S_ISREG(status.st_mode):
        return None
    return DiskInfo(uuid, uuid, status.st_size, status.st_blocks * 512)


def list_images(directory: Path) -> list[DiskInfo]:
    """Every image in the directory. Raises `StorageError`."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise from_os(error) from error
    matches = (IMAGE_NAME.fullmatch(name) for name in names)
    found = (find_image(directory, match[1]) for match in matches if match)
    return [image for image in found if image is not None]
