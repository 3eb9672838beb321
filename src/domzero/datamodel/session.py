"""The session class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, NEVER, NULL_REF, STRING, STRING_MAP, STRING_SET, VOID, RefTo, SetOf

CLASS = Class(
    "session",
    "A logged-in connection to the server; its reference is the first argument of nearly every other call.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("this_host", RefTo("host"), RUNTIME, "rio",
            "The host that accepted this login."),
        Field("this_user", RefTo("user"), RUNTIME, "rio",
            "The local user record the login maps to; not meaningful for directory users."),
        Field("last_active", DATETIME, RUNTIME, "rio",
            "When the session last made a call; idle sessions are dropped after a day, and this may lag by several "
            "minutes.", volatile=True),
        Field("pool", BOOL, RUNTIME, "rio",
            "True when another pool member, rather than a person or program, opened the session."),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free key/value pairs a client may attach to its own session.", default=EMPTY_MAP),
        Field("is_local_superuser", BOOL, RUNTIME, "george",
            "True when the login is the local root account and so bypasses role checks.", default=False),
        Field("subject", RefTo("subject"), RUNTIME, "george",
            "The directory subject the login matched; null for local root.", default=NULL_REF),
        Field("validation_time", DATETIME, RUNTIME, "george",
            "When the account was last confirmed as still valid with the external directory.", default=NEVER),
        Field("auth_user_sid", STRING, RUNTIME, "george",
            "The directory's security identifier for the user; empty for local root.", default=""),
        Field("auth_user_name", STRING, RUNTIME, "midnight-ride",
            "The account name that was used to log in.", default=""),
        Field("rbac_permissions", STRING_SET, CONSTRUCTOR, "midnight-ride",
            "Names of the permissions this session holds, worked out from the user's roles at login.", default=()),
        Field("tasks", SetOf(RefTo("task")), RUNTIME, "midnight-ride",
            "Tasks started by calls made on this session."),
        Field("parent", RefTo("session"), CONSTRUCTOR, "midnight-ride",
            "The session from which this one was derived; null for an ordinary login.", default=NULL_REF),
        Field("originator", STRING, RUNTIME, "clearwater",
            "The name the client program gave itself at login; session limits are counted per originator.",
            default=""),
        Field("client_certificate", BOOL, RUNTIME, "21.2.0",
            "True when the login was proved by a TLS client certificate instead of a password.", default=False),
    ),
    messages=(
        Message("logout_subject_identifier",
            (
                Param("subject_identifier", STRING, "Directory identifier of the user to log out."),
            ), VOID, "george",
            "Ends every session belonging to one directory user, for instance after access has been withdrawn.",
            least_role="pool-operator"),
        Message("get_all_subject_identifiers", (), STRING_SET, "george",
            "Lists the directory identifiers of all externally authenticated users who are logged in now.",
            least_role="read-only"),
        Message("local_logout", (), VOID, "miami",
            "Ends a host-local emergency session made with slave_local_login_with_password.", asynchronous=False),
        Message("create_from_db_file",
            (
                Param("filename", STRING, "Path on the server of the saved database file."),
            ), RefTo("session"), "dundee",
            "Opens a session onto a saved copy of the database instead of the live one, for inspecting its "
            "contents.", asynchronous=False),
        Message("slave_local_login_with_password",
            (
                Param("uname", STRING, "Local account name."),
                Param("pwd", STRING, "Password of that account."),
            ), RefTo("session"), "miami",
            "Logs in to one particular host, even a non-coordinator; the session can only make local and emergency "
            "calls.", session=False, asynchronous=False),
        Message("change_password",
            (
                Param("old_pwd", STRING, "The password in force now."),
                Param("new_pwd", STRING, "The password to use from now on."),
            ), VOID, "rio",
            "Changes the local root password on all pool members; only root may call it and the old password must "
            "match.", asynchronous=False),
        Message("logout", (), VOID, "rio",
            "Ends this session; blocked event calls on it are woken and its reference becomes invalid.",
            least_role="read-only", asynchronous=False),
        Message("login_with_password",
            (
                Param("uname", STRING, "Account name, either local root or a user of the enabled directory."),
                Param("pwd", STRING, "Password of the account."),
                Param("version", STRING,
                      "API version the client expects; accepted for compatibility and ignored.", default=""),
                Param("originator", STRING,
                      "Name of the client program, for bookkeeping and its share of the session limit.", default=""),
            ), RefTo("session"), "rio",
            "Checks a name and password and returns a new session; a pool member that is not the coordinator "
            "refuses and names the coordinator instead.",
            errors=("HOST_IS_SLAVE", "SESSION_AUTHENTICATION_FAILED",), least_role="read-only", session=False,
            asynchronous=False),
    ),
    has_get_all=False,
    emits_events=False,
)
