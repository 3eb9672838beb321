"""A toy model for the tests of calls: lamps in a host, and the engine's own classes as the datamodel has them.

`Toy` is a whole engine over it, with a clock that is moved by hand.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from argon2 import PasswordHasher

from domzero.datamodel import event, role, session, subject, task, user
from domzero.datamodel.errors import ERRORS
from domzero.datamodel.roles import ROLES
from domzero.engine.admission import Gate
from domzero.engine.assembly import Engine, assemble
from domzero.engine.binding import Implementation
from domzero.engine.calls import LOCAL, Answer, Origin
from domzero.engine.clock import Clock
from domzero.engine.context import Context
from domzero.engine.database import Database
from domzero.engine.dispatch import Dispatcher
from domzero.engine.errors import ApiError
from domzero.engine.events import Events
from domzero.engine.passwords import Passwords
from domzero.engine.users import ROOT
from domzero.host.clock import ManualClock
from domzero.idl.graph import Graph
from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    NULL_REF,
    STRING,
    STRING_MAP,
    STRING_SET,
    VOID,
    EnumOf,
    MapOf,
    Ref,
    RefTo,
    SetOf,
    Type,
)

HOST = Class(
    "host",
    "Where lamps hang.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio", "Its identity."),
        Field("name_label", STRING, RW, "rio", "Its name.", setter_role="pool-operator"),
    ),
    has_get_by_name_label=True,
)

_LAMP = Param("self", RefTo("lamp"), "The lamp.")

LAMP = Class(
    "lamp",
    "It shines.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio", "Its identity."),
        Field("name_label", STRING, RW, "rio", "Its name.", setter_role="vm-admin"),
        Field("watts", INT, CONSTRUCTOR, "rio", "How much it takes."),
        Field("colour", EnumOf("lamp_colour"), RW, "rio", "Its colour.", default="white", setter_role="vm-admin"),
        Field("bright", FLOAT, RW, "rio", "How bright.", default=1.0, setter_role="vm-operator"),
        Field("bought", DATETIME, CONSTRUCTOR, "rio", "When.", default="19700101T00:00:00Z"),
        Field("on", BOOL, RUNTIME, "rio", "Whether it shines."),
        Field("host", RefTo("host"), CONSTRUCTOR, "rio", "Where it hangs.", default=NULL_REF),
        Field("spare", RefTo("host"), RW, "rio", "Where else it may hang.", default=NULL_REF),
        Field("tags", STRING_SET, RW, "rio", "Words.", default=(), setter_role="vm-operator"),
        Field(
            "other_config", STRING_MAP, RW, "rio", "Whatever.", default=EMPTY_MAP, setter_role="vm-admin",
            entry_role="vm-operator",
        ),
        Field("levels", MapOf(INT, FLOAT), RW, "rio", "By hour.", default=EMPTY_MAP, setter_role="vm-admin"),
        Field("allowed_operations", SetOf(EnumOf("lamp_operations")), RUNTIME, "rio", "What may start.", default=()),
        Field(
            "current_operations", MapOf(STRING, EnumOf("lamp_operations")), RUNTIME, "rio", "What runs.",
            default=EMPTY_MAP,
        ),
        Field("old", STRING, RUNTIME, "rio", "Removed later, and still served.", removed="tampa"),
        Field("older", STRING, RUNTIME, "cowley", "Removed for good.", removed="tampa"),
    ),
    messages=(
        Message("switch_on", (_LAMP, Param("slowly", BOOL)), VOID, "rio", "Light.", least_role="vm-operator"),
        Message("repair", (_LAMP,), RefTo("lamp"), "rio", "Takes its time.", least_role="vm-admin"),
        Message("explode", (_LAMP,), VOID, "rio", "Goes wrong.", least_role="pool-admin"),
        Message("lock", (_LAMP, Param("password", STRING)), VOID, "rio", "Goes wrong with a secret."),
        Message("sum", (Param("numbers", SetOf(INT)),), INT, "rio", "Adds.", least_role="read-only"),
        Message("melt", (_LAMP,), VOID, "rio", "Nobody knows how.", least_role="pool-admin"),
        Message("gaslight", (_LAMP,), VOID, "cowley", "From another time.", removed="tampa"),
        Message(
            "describe", (_LAMP, Param("language", STRING, default="en")), STRING, "rio", "In words.",
            least_role="read-only", asynchronous=False,
        ),
    ),
    enums=(
        Enum("lamp_colour", "Colours.", {"white": "White.", "red": "Red."}),
        Enum("lamp_operations", "Operations.", {"on": "Light.", "repair": "Mend.", "smash": "End."}),
    ),
    has_get_by_name_label=True,
    constructor_role="vm-admin",
    destructor_role="vm-admin",
)  # fmt: skip

ENGINE_CLASSES = (session.CLASS, subject.CLASS, role.CLASS, task.CLASS, event.CLASS, user.CLASS)
GRAPH = Graph((HOST, LAMP, *ENGINE_CLASSES), ERRORS, ROLES)
NOT_IMPLEMENTED = ("lamp.melt", "session.create_from_db_file")
STRANGER = Origin("192.0.2.7")
PASSWORD = "right horse"

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def check_lamp(database: Database, ref: Ref, operation: str) -> ApiError | None:
    """On only when off; nothing beside a repair; `smash` beside anything."""
    record = database.record("lamp", ref)
    if operation == "on" and record["on"]:
        return ApiError("OPERATION_NOT_ALLOWED", "It is on.")
    if operation != "smash" and record["current_operations"]:
        return ApiError("OTHER_OPERATION_IN_PROGRESS", "lamp", ref)
    return None


def encode_value(type_: Type, value: Any) -> str:
    """Telling enough for tests."""
    return f"<value>{value if isinstance(value, str) else json.dumps(value)}</value>"


class ToyClock(ManualClock):
    """A clock moved by hand that tells who sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.sleepers = 0
        self._changed = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.sleepers += 1
        self._changed.set()
        try:
            await super().sleep(seconds)
        finally:
            self.sleepers -= 1

    async def until_asleep(self, count: int = 1) -> None:
        """Wait until that many sleep; fails when they do not within some real seconds."""
        async with asyncio.timeout(60):
            while self.sleepers < count:
                self._changed.clear()
                await self._changed.wait()


class Toy:
    """An engine over the toy model. `pace` lets `lamp.repair` go on; `seen` collects what implementations were told."""

    def __init__(self, engine: Engine, clock: ToyClock, host: Ref, passwords: Passwords) -> None:
        self.engine = engine
        self.clock = clock
        self.host = host
        self.passwords = passwords
        self.pace = asyncio.Event()
        self.changed = asyncio.Event()
        engine.database.subscribe(lambda changes: self.changed.set())
        self.stopped = False
        self.seen: list[Any] = []
        self.gate = self.new_gate(clock)
        self.hooked: list[tuple[Ref, Any]] = []
        self.dispatcher = self.new_dispatcher()

    @property
    def database(self) -> Database:
        return self.engine.database

    def new_gate(self, clock: Clock) -> Gate:
        return Gate(self.database, "lamp", check_lamp, ("on", "repair"), clock, overtaking=("smash",))

    def implementations(self) -> dict[str, Implementation]:
        return {
            "lamp.switch_on": self.switch_on,
            "lamp.repair": self.repair,
            "lamp.explode": self.explode,
            "lamp.lock": self.lock,
            "lamp.sum": lambda context, numbers: sum(numbers),
            "lamp.describe": lambda context, self, language: f"{language}: {self}",
        }

    def new_dispatcher(self, **changes: Any) -> Dispatcher:
        settings: dict[str, Any] = {"on_set": {"lamp.bright": self.check_bright}, **changes}
        return self.engine.dispatcher(self.implementations(), NOT_IMPLEMENTED, **settings)

    async def switch_on(self, context: Context, self_: Ref, slowly: bool) -> None:
        async with self.gate.operation(context, self_, "on"):
            self.seen.append(context)
            if slowly:
                with context.task.cancellable():
                    context.task.set_progress(0.5)
                    await self.pace.wait()
            with context.database.transaction() as transaction:
                transaction.update("lamp", self_, on=True)
        self.gate.refresh(self_)

    async def repair(self, context: Context, self_: Ref) -> Ref:
        async with self.gate.operation(context, self_, "repair"):
            await self.pace.wait()
            return self_

    def explode(self, context: Context, self_: Ref) -> None:
        raise RuntimeError(f"bang\n{self_}")

    def lock(self, context: Context, self_: Ref, password: str) -> None:
        raise RuntimeError(f"cannot lock with {password}")

    def check_bright(self, context: Context, ref: Ref, value: float) -> None:
        self.hooked.append((ref, value))
        if value < 0:
            raise ApiError("INVALID_VALUE", "bright", str(value))

    async def call(self, method: str, *params: Any, origin: Origin = STRANGER) -> Any:
        """The value of a call."""
        return (await self.answer(method, *params, origin=origin)).value

    async def answer(self, method: str, *params: Any, origin: Origin = STRANGER) -> Answer:
        answer = self.dispatcher.call(method, list(params), origin)
        return await answer if inspect.isawaitable(answer) else answer

    async def fails(self, method: str, *params: Any, origin: Origin = STRANGER) -> tuple[str, ...]:
        """The description of the error that a call must give."""
        try:
            value = await self.call(method, *params, origin=origin)
        except ApiError as error:
            return error.description
        raise AssertionError(f"{method} gave {value!r}")

    async def root(self) -> Ref:
        """A session of root."""
        ref: Ref = await self.call("session.login_with_password", "root", "", origin=LOCAL)
        return ref

    async def session_of(self, role_name: str) -> Ref:
        """A session of a local user who has one role."""
        await self.engine.users.add(role_name, PASSWORD, role_name)
        ref: Ref = await self.call("session.login_with_password", role_name, PASSWORD)
        return ref

    def lamp(self, **fields: Any) -> Ref:
        """A new lamp."""
        with self.database.transaction() as transaction:
            return transaction.create("lamp", {"name_label": "lamp", "watts": 40, "host": self.host, **fields})

    def context(self, label: str = "test") -> Context:
        return self.engine.contexts.background(label)

    async def stop(self) -> None:
        """End it as a daemon does that is told to stop at once. A second time does nothing."""
        if not self.stopped:
            self.stopped = True
            await self.engine.stop(patience=0)
            self.passwords.close()
            await self.database.close()

    async def turns(self, count: int = 25) -> None:
        """Let tasks that can go on do so."""
        for _ in range(count):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that the database tells; fails when it does not within some real seconds."""
        async with asyncio.timeout(60):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def task(self, ref: Ref) -> Mapping[str, Any]:
        return self.database.record("task", ref)


async def make_toy(directory: Path, *, clock: ToyClock | None = None, path: Path | None = None) -> Toy:
    """A started engine: with a `path` its objects are kept there. Root's password is `PASSWORD`."""
    clock = ToyClock() if clock is None else clock
    database = await Database.open(GRAPH, path, clock)
    passwords = Passwords(directory / "passwords.json", CHEAP)
    if ROOT not in passwords:
        await passwords.set(ROOT, PASSWORD)
    hosts = database.refs("host")
    with database.transaction() as transaction:
        host = hosts[0] if hosts else transaction.create("host", {"name_label": "here"})
    engine = assemble(
        database, Events(database, clock), clock, passwords, this_host=lambda: host, encode_value=encode_value,
        random=Random(1),
    )  # fmt: skip
    engine.start()
    return Toy(engine, clock, host, passwords)
