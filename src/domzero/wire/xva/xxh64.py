"""XXH64 of bytes, by libxxhash (Debian's package `libxxhash0`)."""

from __future__ import annotations

import ctypes
from functools import cache

from domzero.wire.xva.model import Bytes


@cache
def _function() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL("libxxhash.so.0").XXH64
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    function.restype = ctypes.c_uint64
    return function


def xxh64_hexdigest(data: Bytes) -> str:
    """16 lower-case digits, with the seed 0. Other threads run meanwhile."""
    content = bytes(data)  # no copy of what is bytes already
    return f"{_function()(content, len(content), 0):016x}"
