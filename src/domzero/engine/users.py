"""Who may log in: root, local users with a role, and, where PAM is asked, the machine's own accounts.

A local user is a `user` object, a `subject` object whose identifier is the user's name and whose roles say what the
user may do, and a password in `Passwords`. A PAM account needs only the subject.
"""

from __future__ import annotations

from collections.abc import Sequence

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.passwords import Authenticator, Passwords
from domzero.engine.roles import NO_RANK, Roles
from domzero.engine.sessions import Account
from domzero.idl.types import NULL_REF, Ref

ROOT = "root"
REFUSED = "The name or the password is wrong."
NO_ROLE = "The account has no role on this server."


class UnknownUserError(Exception):
    """There is no local user of that name."""


class Users:
    """The accounts of this server. `authenticators` are asked in turn; the built-in passwords are one of them."""

    def __init__(
        self, database: Database, roles: Roles, passwords: Passwords, authenticators: Sequence[Authenticator]
    ) -> None:
        self._database = database
        self._roles = roles
        self._passwords = passwords
        self._authenticators = tuple(authenticators)

    def reconcile(self) -> None:
        """Make sure that root has a user object."""
        if self.find(ROOT) == NULL_REF:
            with self._database.transaction() as transaction:
                transaction.create("user", {"short_name": ROOT, "fullname": "superuser"})

    def find(self, name: str) -> Ref:
        """The user object of that name, or the null reference."""
        rows = self._database.rows("user")
        return next((ref for ref, row in rows.items() if row.record["short_name"] == name), NULL_REF)

    def find_subject(self, identifier: str) -> Ref:
        """The subject object of that identifier, or the null reference."""
        rows = self._database.rows("subject")
        return next((ref for ref, row in rows.items() if row.record["subject_identifier"] == identifier), NULL_REF)

    def root(self) -> Account:
        """The account that may do everything."""
        return Account(ROOT, self._roles.highest, superuser=True, user=self.find(ROOT))

    async def authenticate(self, name: str, password: str) -> Account:
        """The account that the name and password prove.

        Raises `SESSION_AUTHENTICATION_FAILED`, or `SESSION_AUTHORIZATION_FAILED` when the account has no role.
        """
        if not await self._verify(name, password):
            raise ApiError("SESSION_AUTHENTICATION_FAILED", name, REFUSED)
        if name == ROOT:
            return self.root()
        subject = self.find_subject(name)
        rank = NO_RANK if subject == NULL_REF else self._roles.rank_of_refs(
            self._database.get("subject", subject, "roles")
        )  # fmt: skip
        if rank == NO_RANK:
            raise ApiError("SESSION_AUTHORIZATION_FAILED", name, NO_ROLE)
        return Account(name, rank, user=self.find(name), subject=subject, sid=name)

    async def change_root_password(self, old: str, new: str) -> None:
        """Replace root's password. Raises `CHANGE_PASSWORD_REJECTED`."""
        if not await self._passwords.verify(ROOT, old):
            raise ApiError("CHANGE_PASSWORD_REJECTED", "The old password is wrong.")
        await self._set_password(ROOT, new)

    async def _set_password(self, name: str, password: str) -> None:
        try:
            await self._passwords.set(name, password)
        except ValueError as problem:
            raise ApiError("CHANGE_PASSWORD_REJECTED", str(problem)) from problem

    async def add(self, name: str, password: str, role: str, fullname: str = "") -> None:
        """Make a local user, or give an existing one this password and role alone.

        Raises `CHANGE_PASSWORD_REJECTED`, and `ROLE_NOT_FOUND` for a role that does not exist.
        """
        if name == ROOT or not name:
            raise ApiError("INVALID_VALUE", "short_name", name)
        if role not in self._roles.ranks:
            raise ApiError("ROLE_NOT_FOUND")
        await self._set_password(name, password)
        with self._database.transaction() as transaction:
            if self.find(name) == NULL_REF:
                transaction.create("user", {"short_name": name, "fullname": fullname or name})
            subject = self.find_subject(name)
            if subject == NULL_REF:
                subject = transaction.create("subject", {"subject_identifier": name})
            information = {"subject-name": name, "subject-gecos": fullname or name, "subject-is-group": "false"}
            transaction.update("subject", subject, roles=(self._roles.ref(role),), other_config=information)
        await self._database.durable()

    async def remove(self, name: str) -> Ref:
        """Remove a local user, whose sessions are over then; gives the subject that was. Raises `UnknownUserError`."""
        user, subject = self.find(name), self.find_subject(name)
        if name == ROOT or user == NULL_REF:
            raise UnknownUserError(name)
        with self._database.transaction() as transaction:
            transaction.destroy("user", user)
            if subject != NULL_REF:
                transaction.destroy("subject", subject)
        await self._passwords.remove(name)
        await self._database.durable()
        return subject

    def overview(self) -> list[dict[str, str]]:
        """Every local user with full name and highest role, by name."""
        people = []
        for row in self._database.rows("user").values():
            name = row.record["short_name"]
            subject = self.find_subject(name)
            role = ""
            if name == ROOT:
                role = self._roles.name(self._roles.highest)
            elif subject != NULL_REF:
                role = self._roles.name(self._roles.rank_of_refs(self._database.get("subject", subject, "roles")))
            people.append({"name": name, "fullname": row.record["fullname"], "role": role})
        return sorted(people, key=lambda person: person["name"])

    async def forget_password(self, name: str) -> None:
        """Let nobody log in any more with the password of an account that is gone."""
        await self._passwords.remove(name)

    async def _verify(self, name: str, password: str) -> bool:
        # No any(): it would not await, and every authenticator is asked in its turn until one knows the account.
        for authenticator in self._authenticators:
            if await authenticator.verify(name, password):
                return True
        return False
