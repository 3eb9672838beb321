"""What a failed call says to a person."""

from __future__ import annotations

from domzero.engine.errors import ApiError
from domzero.idl.graph import Graph
from domzero.idl.types import NULL_REF
from domzero.xe.api import Api

HINT = "For usage run: 'xe help'"
LOGIN_HINT = "Give a user name and a password (-u and -pw, or -pwf)."
BACKEND = "SR_BACKEND_FAILURE"


async def explained(error: ApiError, graph: Graph, api: Api | None, user: str | None) -> str | None:
    """The text for standard error, or None for an error that is shown by its code.

    References among the parameters are shown as uuids with names, as far as the caller may read them.
    """
    if error.code == "SESSION_AUTHENTICATION_FAILED":
        return "Authentication failed\n" if user else f"Authentication failed\n{LOGIN_HINT}\n"
    row = graph.errors.get(error.code)
    if row is None or error.code.startswith(BACKEND):
        return None
    lines = [row.doc]
    for position, param in enumerate(error.params):
        name = row.params[position] if position < len(row.params) else f"parameter {position + 1}"
        lines.append(f"{name}: {await _named(param, graph, api)}")
    return "\n".join(lines) + "\n"


async def in_short(error: ApiError, graph: Graph, api: Api | None) -> str:
    """The same on few lines, for a list of failures."""
    text = await explained(error, graph, api, None)
    return text if text is not None else f"{error.code}: {', '.join(error.params)}\n"


async def _named(param: str, graph: Graph, api: Api | None) -> str:
    if api is None or not param.startswith("OpaqueRef:") or param == NULL_REF:
        return param
    for name, cls in graph.classes.items():
        if not cls.has_getters or not cls.has_get_all:
            continue
        try:
            record = await api.call(f"{name}.get_record", param)
        except ApiError:
            continue  # not of this class, or not for these eyes
        label = record.get("name_label")
        return f"{record['uuid']} ({label})" if label else str(record["uuid"])
    return param
