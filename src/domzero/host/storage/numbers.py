"""XenServer's SM error numbers, those that our drivers use. A client sees `SR_BACKEND_FAILURE_<number>`."""

from __future__ import annotations

import errno

from domzero.host.storage.protocol import StorageError

INVALID_ARGUMENT = 1
REPOSITORY_IN_USE = 16
DISK_IN_USE = 24
NOT_IMPLEMENTED = 38
REPOSITORY_EXISTS = 42
DISK_EXISTS = 43
NO_SPACE = 44
DISK_UNAVAILABLE = 46
REPOSITORY_UNAVAILABLE = 47
MOUNT = 52
UNMOUNT = 53
FILE_SYSTEM = 57
DIRECTORY_NOT_CREATED = 61
DISK_UNREADABLE = 65
DISK_TYPE = 66
NFS_VERSION = 72
NFS_MOUNT = 73
NFS_UNMOUNT = 74
DISK_SIZE = 79
CLONE = 81
SNAPSHOT = 82
DEVICE_MISSING = 90
DEVICE_INVALID = 91
LOCATION_MISSING = 94
SERVER_PATH_MISSING = 101
SERVER_MISSING = 102
SERVER_PATH_BAD = 103
CHAIN_TOO_LONG = 109
DISK_RESIZE = 110
NAME_UNKNOWN = 140
DISK_MISSING = 144
INPUT_OUTPUT = 200
GENERAL = 202


def from_os(error: OSError, missing: int = REPOSITORY_UNAVAILABLE) -> StorageError:
    """What a failed system call means; `missing` is the number for a file that is not there."""
    numbers = {
        errno.ENOSPC: NO_SPACE,
        errno.EDQUOT: NO_SPACE,
        errno.ENOENT: missing,
        errno.ENOTDIR: missing,
        errno.EACCES: REPOSITORY_UNAVAILABLE,
        errno.EPERM: REPOSITORY_UNAVAILABLE,
        errno.EROFS: REPOSITORY_UNAVAILABLE,
    }
    name = f"{error.filename}: " if error.filename else ""
    return StorageError(numbers.get(error.errno or 0, INPUT_OUTPUT), f"{name}{error.strerror}")
