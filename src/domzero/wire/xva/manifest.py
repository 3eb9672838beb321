"""The `ova.xml` of an archive: XML-RPC's `<value>` of a struct of `version` and `objects`, or the legacy appliance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from domzero.idl.types import RecordOf
from domzero.wire.xml_decode import XmlRpcError, decode_value
from domzero.wire.xml_encode import XmlEncoder, escape
from domzero.wire.xva.appliance import decode_appliance, is_appliance
from domzero.wire.xva.model import (
    MAX_MANIFEST,
    Appliance,
    ArchivedObject,
    ArchiveVersion,
    Manifest,
    too_new,
    unreadable,
)

MAX_VALUES = 1_000_000
"""How many values a manifest may hold; a machine and what belongs to it have some three hundred."""
EXPORT_VSN = 2
"""The newest form of archives, which is the one that is written."""
NEWEST_XAPI = (99, 99)
"""Toolstacks up to this version write archives of a form that is understood here: the form has been the same since 4.1,
and their numbers have been those of years since 2022."""

_ID = re.compile(r"Ref:[0-9]{1,10}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TEXTS = ("hostname", "date", "product_version", "product_brand", "build_number")
_NUMBERS = ("xapi_major", "xapi_minor", "export_vsn")


def decode_manifest(xml: bytes) -> Manifest | Appliance:
    """Read an `ova.xml`. Takes seconds for thousands of machines: call it in a thread. Raises `XvaError`."""
    if len(xml) > MAX_MANIFEST:
        raise unreadable(f"ova.xml is larger than {MAX_MANIFEST} bytes")
    if is_appliance(xml):
        return decode_appliance(xml)
    try:
        value = decode_value(xml, MAX_VALUES)
    except XmlRpcError as error:
        raise unreadable(f"ova.xml: {error}") from None
    struct = _need(value, dict, "ova.xml")
    version = _version(_need(struct.get("version"), dict, "version"))
    objects = tuple(map(_object, _need(struct.get("objects"), list, "objects")))
    if len({item.id for item in objects}) != len(objects):
        raise unreadable("ova.xml: two objects have the same id")
    return Manifest(version, objects)


def encode_manifest(manifest: Manifest, encoder: XmlEncoder) -> bytes:
    """An `ova.xml`. Snapshots are the API's values; fields that are missing from one are left out.

    The encoder's graph knows the classes. Takes seconds for thousands of machines.
    """
    version = "".join(_member(name, escape(str(getattr(manifest.version, name)))) for name in _TEXTS)
    version += "".join(_member(name, f"<int>{getattr(manifest.version, name):d}</int>") for name in _NUMBERS)
    parts = [
        b"<value><struct><member><name>version</name><value><struct>",
        version.encode(),
        b"</struct></value></member><member><name>objects</name><value><array><data>",
    ]
    for item in manifest.objects:
        parts += (
            f"<value><struct>{_member('class', escape(item.cls))}{_member('id', escape(item.id))}".encode(),
            b"<member><name>snapshot</name>",
            encoder.encode(RecordOf(item.cls), dict(item.snapshot)),
            b"</member></struct></value>",
        )
    parts.append(b"</data></array></value></member></struct></value>")
    return b"".join(parts)


def check_version(version: ArchiveVersion, newest: tuple[int, int] = NEWEST_XAPI) -> None:
    """Raises `XvaError` (`IMPORT_INCOMPATIBLE_VERSION`) for an archive that a newer toolstack wrote."""
    if version.export_vsn > EXPORT_VSN or (version.xapi_major, version.xapi_minor) > newest:
        raise too_new()


def _member(name: str, value: str) -> str:
    return f"<member><name>{name}</name><value>{value}</value></member>"


def _version(struct: Mapping[str, Any]) -> ArchiveVersion:
    texts = {name: _need(struct.get(name, ""), str, name) for name in _TEXTS}
    major, minor, export = (_number(struct.get(name, 0), name) for name in _NUMBERS)
    return ArchiveVersion(**texts, xapi_major=major, xapi_minor=minor, export_vsn=export)


def _number(value: Any, name: str) -> int:
    """A version's number: a real integer, or one as text, as XenAPI writes integers elsewhere."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value, re.ASCII):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise unreadable(f"ova.xml: {name} is no number")


def _object(value: Any) -> ArchivedObject:
    struct = _need(value, dict, "an object")
    id = _need(struct.get("id"), str, "an object's id")
    if not _ID.fullmatch(id):
        raise unreadable(f"ova.xml: {id[:80]!a} is no id")
    snapshot = _need(struct.get("snapshot"), dict, "an object's snapshot")
    uuid = _need(snapshot.get("uuid", ""), str, "an object's uuid")
    # Whoever restores an object takes its uuid over, and hosts name directories after uuids.
    if uuid and not _UUID.fullmatch(uuid):
        raise unreadable(f"ova.xml: {uuid[:80]!a} is no uuid")
    return ArchivedObject(_need(struct.get("class"), str, "an object's class"), id, snapshot)


def _need(value: Any, type: type, what: str) -> Any:
    if not isinstance(value, type):
        raise unreadable(f"ova.xml: {what} is missing or of the wrong type")
    return value
