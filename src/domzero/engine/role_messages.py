"""The messages of the role class."""

from __future__ import annotations

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.idl.types import Ref


@implements("role.get_permissions")
def get_permissions(context: Context, self: Ref) -> tuple[Ref, ...]:
    """The permissions a role holds; a permission holds itself."""
    subroles: tuple[Ref, ...] = context.database.get("role", self, "subroles")
    return subroles or (self,)


@implements("role.get_permissions_name_label")
def get_permissions_name_label(context: Context, self: Ref) -> tuple[str, ...]:
    """The names of the permissions a role holds."""
    return tuple(context.database.get("role", ref, "name_label") for ref in get_permissions(context, self))


@implements("role.get_by_permission")
def get_by_permission(context: Context, permission: Ref) -> tuple[Ref, ...]:
    """The roles that hold a permission. Raises `HANDLE_INVALID` when it is no role object."""
    context.database.row("role", permission)
    rows = context.database.rows("role")
    return tuple(ref for ref, row in rows.items() if permission in row.record["subroles"])


@implements("role.get_by_permission_name_label")
def get_by_permission_name_label(context: Context, label: str) -> tuple[Ref, ...]:
    """The roles that hold the permission of that name; none is no error."""
    found: dict[Ref, None] = {}
    for permission in context.database.by_name_label("role", label):
        found.update(dict.fromkeys(get_by_permission(context, permission)))
    return tuple(found)
