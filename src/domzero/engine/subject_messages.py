"""The messages of the subject and user classes: whom the server lets in, and with which roles.

Changes act on sessions that are open, at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.session_messages import Accounts
from domzero.engine.users import ROOT
from domzero.idl.types import NULL_REF, Ref


@implements("subject.create")
def create_subject(accounts: Accounts, context: Context, args: Mapping[str, Any]) -> Ref:
    """A new subject, without any role. Raises `SUBJECT_ALREADY_EXISTS`."""
    if accounts.users.find_subject(args["subject_identifier"]) != NULL_REF:
        raise ApiError("SUBJECT_ALREADY_EXISTS")
    with context.database.transaction() as transaction:
        return transaction.create("subject", args)


@implements("subject.destroy")
def destroy_subject(accounts: Accounts, context: Context, self: Ref) -> None:
    """Remove a subject and end its sessions. Raises `HANDLE_INVALID`."""
    with context.database.transaction() as transaction:
        transaction.destroy("subject", self)
        accounts.sessions.close_where(lambda session: session.account.subject == self)


@implements("subject.add_to_roles")
def add_to_roles(accounts: Accounts, context: Context, self: Ref, role: Ref) -> None:
    """Grant a role. Raises `HANDLE_INVALID`, `ROLE_NOT_FOUND`, `ROLE_ALREADY_EXISTS`."""
    held = context.database.get("subject", self, "roles")
    if accounts.roles.rank_of_refs((role,)) < 0:
        raise ApiError("ROLE_NOT_FOUND")
    if role in held:
        raise ApiError("ROLE_ALREADY_EXISTS")
    _set_roles(context, self, (*held, role))


@implements("subject.remove_from_roles")
def remove_from_roles(accounts: Accounts, context: Context, self: Ref, role: Ref) -> None:
    """Withdraw a role. Raises `HANDLE_INVALID`, `ROLE_NOT_FOUND`."""
    held = context.database.get("subject", self, "roles")
    if role not in held:
        raise ApiError("ROLE_NOT_FOUND")
    _set_roles(context, self, tuple(other for other in held if other != role))


@implements("subject.get_permissions_name_label")
def get_permissions_name_label(accounts: Accounts, context: Context, self: Ref) -> tuple[str, ...]:
    """The names of the permissions that a subject has through its roles."""
    return accounts.roles.permissions(accounts.roles.rank_of_refs(context.database.get("subject", self, "roles")))


@implements("user.create")
def create_user(accounts: Accounts, context: Context, args: Mapping[str, Any]) -> Ref:
    """A user object; without a password and a subject it cannot log in. Raises `DB_UNIQUENESS_CONSTRAINT_VIOLATION`."""
    if accounts.users.find(args["short_name"]) != NULL_REF:
        raise ApiError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "user", "short_name", args["short_name"])
    with context.database.transaction() as transaction:
        return transaction.create("user", args)


@implements("user.destroy")
async def destroy_user(accounts: Accounts, context: Context, self: Ref) -> None:
    """Remove a user object and its password, and end its sessions.

    Raises `HANDLE_INVALID`, and `OPERATION_NOT_ALLOWED` for root's.
    """
    name = context.database.get("user", self, "short_name")
    if name == ROOT:
        raise ApiError("OPERATION_NOT_ALLOWED", "Root's user object cannot be removed.")
    with context.database.transaction() as transaction:
        transaction.destroy("user", self)
        accounts.sessions.close_where(lambda session: session.account.user == self)
    await accounts.users.forget_password(name)


def _set_roles(context: Context, subject: Ref, roles: tuple[Ref, ...]) -> None:
    with context.database.transaction() as transaction:
        transaction.update("subject", subject, roles=roles)
