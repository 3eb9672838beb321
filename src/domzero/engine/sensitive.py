"""Which values nobody is to read in logs and reports, told by the names of parameters, fields and keys.

The vocabulary has no mark for secrets; the names it uses for them are few.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

HIDDEN = "(hidden)"

_WORDS = re.compile(r"pass(?!through)|pwd|secret|token|credential|private|psk|community", re.IGNORECASE)
_WHOLE = frozenset({"xenstore_data", "xenstore-data", "NVRAM", "contents", "license_key", "user-data", "user_data"})
"""Names of what is handed through as it is, to guests above all: nobody here knows what of it is secret."""


@lru_cache(maxsize=4096)
def is_sensitive(name: str) -> bool:
    """Whether what goes by this name is not to be shown."""
    return name in _WHOLE or _WORDS.search(name) is not None


def without_secrets(name: str, value: Any) -> Any:
    """A value of the API with all that is sensitive replaced: itself by its name, or what its keys and fields name.

    Of a map that is handed through as it is the keys stay.
    """
    if isinstance(value, Mapping):
        hide_all = is_sensitive(name)
        return {key: HIDDEN if hide_all else without_secrets(str(key), inner) for key, inner in value.items()}
    if is_sensitive(name):
        return HIDDEN if value else value
    if isinstance(value, list | tuple):
        return [without_secrets("", item) for item in value]
    return value
