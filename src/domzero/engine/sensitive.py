"""Which values nobody is to read in logs and reports, told by the names of parameters, fields and keys, and in texts by
what stands around them.

The vocabulary has no mark for secrets; the names it uses for them are few.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

HIDDEN = "(hidden)"

_WORDS = re.compile(
    r"pass(?!through)|pwd|pw(?![a-z])|secret|token|credential|private|psk|community|session_id", re.IGNORECASE
)
_WHOLE = frozenset({"xenstore_data", "xenstore-data", "NVRAM", "contents", "license_key", "user-data", "user_data"})
"""Names of what is handed through as it is, to guests above all: nobody here knows what of it is secret."""

# Texts come from guests and other strangers: every repetition that a failing search would go back into is bounded.
_HINT = re.compile(r"[=:$]|(?i:basic|bearer|digest|-passw|-passphrase|-secret|-token|-pw)")
"""Is in every text in which one of the following is; most texts have none, and are looked through once."""
_KEY_WORDS = "PRIVATE KEY-----"
_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
)
_HASH = re.compile(r"\$(?:argon2\w{0,8}|2[aby]|[156]|y|gy)\$[^\s\"',:]+")
_USER_INFORMATION = re.compile(r"(://[^\s/@:\"']{0,200}:)[^\s/\"']{1,200}@")
_AUTHORIZATION = re.compile(r"(?i)\b(basic|bearer|digest)[ \t]{1,8}[A-Za-z0-9+/=._~-]{6,}")
_NAMED = re.compile(
    r"(?i)((?:pass|pwd|pw(?![a-z])|secret|token|credential|psk|session_id|private[_-]key)[\w.-]{0,40}[\"']?[ \t]{0,8}"
    r"(?:=>|[=:])[ \t]{0,8}[\"']?)([^\s\"',;&)}]+)"
)
_OPTION = re.compile(r"(?i)(-(?:password|passwd|passphrase|secret|token|pw)(?:=|[ \t]{1,8}))(\S+)")


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


def without_keys(text: str) -> str:
    """A text without private keys in PEM (RFC 7468); of one that has no end all that follows is left out."""
    return _KEY.sub(HIDDEN, text) if _KEY_WORDS in text else text


def without_written_secrets(text: str) -> str:
    """A text without what looks like a password, a hash of one, or a token: in addresses, options and headers, and
    behind the name of one. Too much being hidden does no harm."""
    if _HINT.search(text) is None:
        return text
    text = _HASH.sub(HIDDEN, text)
    text = _USER_INFORMATION.sub(rf"\1{HIDDEN}@", text)
    text = _AUTHORIZATION.sub(rf"\1 {HIDDEN}", text)
    for pattern in (_NAMED, _OPTION):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text
