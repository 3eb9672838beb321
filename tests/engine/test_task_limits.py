"""What one account's clients may make of tasks, so that there is something left for everybody else."""

from __future__ import annotations

from domzero.engine.task_messages import LONGEST_TEXT
from domzero.engine.tasks import CLIENT_LIMIT
from tests.engine.toy_calls import PASSWORD, Toy


async def test_no_account_takes_up_all_tasks(toy: Toy) -> None:
    reader, other = await toy.session_of("read-only"), await toy.session_of("vm-operator")
    mine = [await toy.call("task.create", reader, str(number), "") for number in range(CLIENT_LIMIT)]
    assert await toy.fails("task.create", reader, "one more", "") == ("TOO_MANY_PENDING_TASKS",)
    again = await toy.call("session.login_with_password", "read-only", PASSWORD)
    assert await toy.fails("task.create", again, "one more", "") == ("TOO_MANY_PENDING_TASKS",)
    await toy.call("task.create", other, "of somebody else", "")
    await toy.call("Async.lamp.repair", await toy.root(), toy.lamp())
    await toy.call("task.set_status", reader, mine[0], "success")
    await toy.call("task.create", reader, "there is room", "")


async def test_what_clients_say_about_tasks_is_bounded(toy: Toy) -> None:
    session = await toy.session_of("read-only")
    most = "x" * (LONGEST_TEXT - 2)
    long = "INVALID_VALUE", "label", f"{LONGEST_TEXT + 1} characters; there may be {LONGEST_TEXT}"
    assert await toy.fails("task.create", session, most, "y") == long
    task = await toy.call("task.create", session, most, "")
    await toy.call("task.set_result", session, task, most)
    assert (await toy.fails("task.set_result", session, task, f"{most}yz"))[:2] == ("INVALID_VALUE", "result")
    assert (await toy.fails("task.set_error_info", session, task, [""] * 100_000))[1] == "error_info"
    assert (toy.task(task)["result"], toy.task(task)["error_info"]) == (most, ())
