"""The database against a model of plain dicts, and event clients that rebuild it from what they are told."""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.events import Events
from domzero.engine.transactions import Transaction
from domzero.host.clock import ManualClock, SystemClock
from domzero.idl.types import NULL_REF
from tests.engine.toy import GRAPH, AbandonedError, contents

Result = TypeVar("Result")
Model = dict[str, dict[str, Any]]

CLASSES = ("crate", "parcel", "depot")
BULK = "x" * 500_000


class Client:
    """Follows events and keeps what it is told; complains about events that make no sense to it."""

    def __init__(self, session: str, *wanted: str) -> None:
        self.session = session
        self.wanted = wanted
        self.token = ""
        self.known: dict[str, Any] = {}

    def classes(self) -> tuple[str, ...]:
        return CLASSES if self.wanted == ("*",) else tuple(name.lower() for name in self.wanted)

    async def follow(self, events: Events, timeout: float = 0.0) -> None:
        try:
            batch = await events.from_(self.session, self.wanted, self.token, timeout)
        except ApiError as error:
            if error.code != "EVENTS_LOST":
                raise
            self.token = ""
            self.known.clear()
            return
        self.token = batch["token"]
        assert len({event["ref"] for event in batch["events"]}) == len(batch["events"])
        assert [event["id"] for event in batch["events"]] == sorted(event["id"] for event in batch["events"])
        self.apply(batch["events"])
        for name, count in batch["valid_ref_counts"].items():
            assert count == sum(1 for row in self.known.values() if row["class"] == name)

    def apply(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            assert event["class"] in self.classes()
            assert (event["operation"] == "add") == (event["ref"] not in self.known), event
            if event["operation"] == "del":
                del self.known[event["ref"]]
            else:
                self.known[event["ref"]] = {"class": event["class"], **event["snapshot"]}

    def must_know(self, database: Database) -> None:
        expected = {ref: row for ref, row in contents(database).items() if row["class"] in self.classes()}
        assert self.known == expected


class ClassicClient(Client):
    """The same with the older calls."""

    async def start(self, events: Events, database: Database) -> None:
        events.unregister(self.session, self.wanted)
        events.register(self.session, self.wanted)
        self.known = {ref: row for ref, row in contents(database).items() if row["class"] in self.classes()}

    async def follow_all(self, events: Events, database: Database) -> None:
        task = asyncio.ensure_future(events.next(self.session))
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        try:
            self.apply(task.result())
        except ApiError as error:
            if error.code != "EVENTS_LOST":
                raise
            await self.start(events, database)


def absent(cls: str) -> str:
    """A reference that most of the time refers to nothing."""
    return f"OpaqueRef:{cls}-absent"


def derive(model: Model) -> Model:
    """The model with the sets that the database derives, in the order of creation (that of the dict)."""
    full = {ref: dict(row) for ref, row in model.items()}
    for row in full.values():
        if row["class"] == "crate":
            row["parcels"] = ()
        if row["class"] == "depot":
            row["crates"] = row["parcels"] = ()
    for ref, row in full.items():
        if row["class"] == "parcel":
            if row["crate"] in full:
                full[row["crate"]]["parcels"] += (ref,)
            for depot in dict.fromkeys(row["depots"]):
                if depot in full:
                    full[depot]["parcels"] += (ref,)
        if row["class"] == "crate" and row["depot"] in full:
            full[row["depot"]]["crates"] += (ref,)
    return full


class DatabaseMachine(RuleBasedStateMachine):
    """Any sequence of transactions, refusals of the disk and restarts."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("domzero.engine.journal").setLevel(logging.CRITICAL)
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "state.db"
        self.clients = [Client("a", "*"), Client("b", "Crate"), Client("c", "parcel", "depot")]
        self.classic = ClassicClient("d", "*")
        self.model: Model = {}
        self.saved: Model = {}

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(work)

    @initialize()
    def open(self) -> None:
        self.run(self.reopen())

    async def reopen(self) -> None:
        self.database = await Database.open(GRAPH, self.path, ManualClock(), deletions_kept=4)
        assert self.database.findings == ()
        self.events = Events(self.database, ManualClock(), events_kept=12)
        await self.classic.start(self.events, self.database)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.fill(full=False)
            self.run(self.database.close())
        self.loop.close()
        self.directory.cleanup()

    def pick(self, cls: str, choice: int) -> str:
        """Some object of the class, or one that never was."""
        refs = [ref for ref, row in self.model.items() if row["class"] == cls]
        return refs[choice % len(refs)] if refs else absent(cls)

    def change(self, transaction: Transaction, dice: random.Random) -> None:
        """One random change, in the database and in the model."""
        cls = dice.choice(CLASSES)
        ref = self.pick(cls, dice.randrange(100))
        crate = dice.choice((self.pick("crate", dice.randrange(100)), NULL_REF, absent("crate")))
        depots = tuple(self.pick("depot", dice.randrange(100)) for _ in range(dice.randrange(3)))
        choices: dict[str, dict[str, Any]] = {
            "crate": {"name_label": dice.choice("abc"), "depot": depots[0] if depots else NULL_REF},
            "parcel": {"crate": crate, "depots": depots},
            "depot": {"name_label": dice.choice("abc")},
        }
        fields = choices[cls]
        if cls == "crate" and dice.random() < 0.3:
            fields["temperature"] = float(dice.randrange(9))
        kind = dice.choice(("create", "create", "create again", "update", "update", "destroy"))
        if kind.startswith("create"):
            wanted = absent(cls) if kind == "create again" and absent(cls) not in self.model else None
            made = transaction.create(cls, fields, ref=wanted)
            self.model[made] = {"class": cls, **self.database.record(cls, made)}
        elif ref not in self.model or self.model[ref]["class"] != cls:
            return
        elif kind == "update":
            transaction.update(cls, ref, **fields)
            self.model[ref].update(fields)
        else:
            transaction.destroy(cls, ref)
            del self.model[ref]

    @rule(seed=st.integers(0, 2**32), size=st.integers(1, 6))
    def transact(self, seed: int, size: int) -> None:
        dice = random.Random(seed)
        with self.database.transaction() as transaction:
            for _ in range(size):
                self.change(transaction, dice)

    @rule(seed=st.integers(0, 2**32), size=st.integers(1, 6))
    def abandon(self, seed: int, size: int) -> None:
        dice, before = random.Random(seed), self.copy()
        with suppress(AbandonedError), self.database.transaction() as transaction:
            for _ in range(size):
                self.change(transaction, dice)
            raise AbandonedError
        self.model = before

    @rule(seed=st.integers(0, 2**32))
    def abandon_the_inner_half(self, seed: int) -> None:
        dice = random.Random(seed)
        with self.database.transaction() as transaction:
            self.change(transaction, dice)
            before = self.copy()
            with suppress(AbandonedError), self.database.transaction() as inner:
                self.change(inner, dice)
                self.change(inner, dice)
                raise AbandonedError
            self.model = before
            self.change(transaction, dice)

    def copy(self) -> Model:
        return {ref: dict(row) for ref, row in self.model.items()}

    @rule(choice=st.integers(0, 100))
    def touch(self, choice: int) -> None:
        ref = self.pick("crate", choice)
        if ref in self.model:
            self.events.inject("crate", ref)

    @rule()
    def save(self) -> None:
        self.run(self.database.durable())
        self.saved = self.copy()

    @rule(seed=st.integers(0, 2**32))
    def refuse_to_save(self, seed: int) -> None:
        """Everything since the last save is taken back, but for measurements; those of dead objects die with them."""
        self.save()
        self.transact(seed, 4)
        measured = {row["uuid"]: row["temperature"] for row in self.model.values() if row["class"] == "crate"}
        self.fill(full=True)
        with self.database.transaction() as transaction:
            transaction.create("crate", {"name_description": BULK})
        with pytest.raises(ApiError, match="could not be written"):
            self.run(self.database.durable())
        self.fill(full=False)
        self.model = {ref: dict(row) for ref, row in self.saved.items()}
        for ref, row in self.model.items():
            if row["class"] == "crate":
                row["temperature"] = measured.get(row["uuid"], self.database.get("crate", ref, "temperature"))
        # What came back to life is younger now.
        created = {ref: row.created for cls in CLASSES for ref, row in self.database.rows(cls).items()}
        self.model = dict(sorted(self.model.items(), key=lambda item: created[item[0]]))

    def fill(self, *, full: bool) -> None:
        assert self.database._store is not None
        connection = self.database._store._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 20 if full else 1_000_000}")

    @rule()
    def restart(self) -> None:
        self.run(self.database.close())
        # Dangling references are legal while running and resolved by a start.
        for row in self.model.values():
            if row["class"] == "crate" and row["depot"] not in self.model:
                row["depot"] = NULL_REF
            if row["class"] == "parcel":
                row["crate"] = row["crate"] if row["crate"] in self.of("crate") else NULL_REF
                row["depots"] = tuple(ref for ref in row["depots"] if ref in self.of("depot"))
        self.run(self.reopen_repaired())
        self.saved = self.copy()

    def of(self, cls: str) -> set[str]:
        return {ref for ref, row in self.model.items() if row["class"] == cls}

    async def reopen_repaired(self) -> None:
        self.database = await Database.open(GRAPH, self.path, ManualClock(), deletions_kept=4)
        self.events = Events(self.database, ManualClock(), events_kept=12)
        await self.classic.start(self.events, self.database)

    @rule(which=st.integers(0, 2))
    def follow(self, which: int) -> None:
        client = self.clients[which]
        self.run(client.follow(self.events))
        if client.token:
            client.must_know(self.database)

    @rule()
    def follow_the_classic_way(self) -> None:
        self.run(self.classic.follow_all(self.events, self.database))
        self.classic.must_know(self.database)

    @invariant()
    def same_as_the_model(self) -> None:
        if not hasattr(self, "database"):
            return
        assert contents(self.database) == derive(self.model)
        for cls in ("crate", "depot"):
            for label in "abc":
                named = {r for r, row in self.model.items() if row["class"] == cls and row["name_label"] == label}
                found = self.database.by_name_label(cls, label)
                assert set(found) == named
                assert len(found) == len(named)
        for ref, row in self.model.items():
            assert self.database.by_uuid(row["class"], row["uuid"]) == ref


TestDatabaseMachine = DatabaseMachine.TestCase
TestDatabaseMachine.settings = settings(stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
async def test_clients_of_concurrent_writers_end_up_with_the_servers_state(tmp_path: Path) -> None:
    database = await Database.open(GRAPH, tmp_path / "state.db", SystemClock())
    events = Events(database, SystemClock())
    clients = [Client(f"client {number}", "*" if number % 2 else "crate") for number in range(6)]
    writing = True

    async def write(seed: int) -> None:
        dice = random.Random(seed)
        mine: list[str] = []
        for step in range(120):
            with database.transaction() as transaction:
                kind = dice.random()
                if kind < 0.4 or not mine:
                    depot = dice.choice(database.refs("depot") or (NULL_REF,))
                    mine.append(transaction.create("crate", {"name_label": f"{seed}", "depot": depot}))
                    transaction.create("depot", {})
                elif kind < 0.8:
                    transaction.update("crate", dice.choice(mine), weight=step)
                    transaction.create("parcel", {"crate": dice.choice(mine)})
                else:
                    transaction.destroy("crate", mine.pop(dice.randrange(len(mine))))
            await (database.durable() if dice.random() < 0.5 else asyncio.sleep(dice.random() / 300))

    async def follow(client: Client) -> None:
        while writing:
            await client.follow(events, 0.05)

    followers = [asyncio.create_task(follow(client)) for client in clients]
    await asyncio.gather(*(write(seed) for seed in range(5)))
    writing = False
    await asyncio.gather(*followers)
    for client in clients:
        await client.follow(events)
        client.must_know(database)
    await database.close()
