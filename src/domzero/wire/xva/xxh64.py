"""XXH64 of bytes, by libxxhash (Debian's package `libxxhash0`)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

from domzero.wire.xva.model import Bytes, unreadable

LIBRARY = "libxxhash.so.0"


@cache
def load(library: str = LIBRARY) -> Callable[[bytes, int, int], int]:
    """The library's function. Raises `XvaError` where it is not installed: such an archive cannot be checked here."""
    try:
        function = ctypes.CDLL(library).XXH64
    except (OSError, AttributeError):
        raise unreadable(f"checksums of the kind XXH64 need {library}, which is not installed on this host") from None
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    function.restype = ctypes.c_uint64
    result: Callable[[bytes, int, int], int] = function
    return result


def xxh64_hexdigest(data: Bytes) -> str:
    """16 lower-case digits, with the seed 0. Other threads run meanwhile. Raises as `load` does."""
    content = bytes(data)  # no copy of what is bytes already
    return f"{load()(content, len(content), 0):016x}"
