"""The messages of the session class. Login and logout are ordinary messages of the graph."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.engine.binding import implements
from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.login import Door
from domzero.engine.roles import Roles
from domzero.engine.sessions import Sessions
from domzero.engine.users import Users
from domzero.idl.records import Record
from domzero.idl.types import Ref


@dataclass(frozen=True, slots=True)
class Accounts:
    """What messages about sessions, users and roles work with."""

    door: Door
    sessions: Sessions
    users: Users
    roles: Roles


@implements("session.login_with_password", abandoned_with_caller=True)
async def login_with_password(
    accounts: Accounts,
    context: Context,
    uname: str,
    pwd: str,
    version: str,
    originator: str,
) -> Ref:
    """Open a session. Raises `SESSION_AUTHENTICATION_FAILED`, `SESSION_AUTHORIZATION_FAILED`."""
    return (await accounts.door.login(uname, pwd, originator, context.origin)).ref


@implements("session.slave_local_login_with_password", abandoned_with_caller=True)
async def slave_local_login_with_password(accounts: Accounts, context: Context, uname: str, pwd: str) -> Ref:
    """Open an emergency session of this host. Raises `SESSION_AUTHENTICATION_FAILED`."""
    return (await accounts.door.login_locally(uname, pwd, context.origin)).ref


@implements("session.logout")
def logout(accounts: Accounts, context: Context) -> None:
    """End the session of the call."""
    accounts.sessions.close(context.caller.ref)


@implements("session.local_logout")
def local_logout(accounts: Accounts, context: Context) -> None:
    """End the emergency session of the call; an ordinary session is left alone."""
    if context.caller.emergency:
        accounts.sessions.close(context.caller.ref)


@implements("session.change_password")
async def change_password(accounts: Accounts, context: Context, old_pwd: str, new_pwd: str) -> None:
    """Change root's password. Raises `USER_IS_NOT_LOCAL_SUPERUSER`, `CHANGE_PASSWORD_REJECTED`."""
    if not context.caller.account.superuser:
        raise ApiError("USER_IS_NOT_LOCAL_SUPERUSER", "Only root has a password that this call changes.")
    await accounts.users.change_root_password(old_pwd, new_pwd)


@implements("session.logout_subject_identifier")
def logout_subject_identifier(accounts: Accounts, context: Context, subject_identifier: str) -> None:
    """End every session of an account, the one of the call excepted. Local root has no identifier."""
    if subject_identifier:
        own = context.caller.ref
        accounts.sessions.close_where(lambda one: one.account.sid == subject_identifier and one.ref != own)


@implements("session.get_all_subject_identifiers")
def get_all_subject_identifiers(accounts: Accounts, context: Context) -> tuple[str, ...]:
    """The identifiers of the accounts logged in now, local root left out, each once."""
    live = accounts.sessions.live.values()
    return tuple(dict.fromkeys(session.account.sid for session in live if session.account.sid))


@implements("session.get_last_active")
def get_last_active(accounts: Accounts, context: Context, self: Ref) -> str:
    """When a session was last used, exactly; what is stored lags."""
    stored: str = context.database.get("session", self, "last_active")
    return accounts.sessions.last_active(self) or stored


@implements("session.get_rbac_permissions")
def get_rbac_permissions(accounts: Accounts, context: Context, self: Ref) -> tuple[str, ...]:
    """What a session may do now. Empty for local root, who may do everything."""
    record = context.database.record("session", self)
    session = accounts.sessions.live.get(self)
    if session is None or record["is_local_superuser"]:
        return ()
    return accounts.roles.permissions(session.rank)


@implements("session.get_record")
def get_record(accounts: Accounts, context: Context, self: Ref) -> Record:
    """The session with what is kept outside its stored record."""
    return context.database.record("session", self).changed(
        {
            "last_active": get_last_active(accounts, context, self),
            "rbac_permissions": get_rbac_permissions(accounts, context, self),
        }
    )
