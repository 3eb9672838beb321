"""Work that is done to its end although its caller is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from domzero.finish import beside, finish, in_thread


async def test_a_cancelled_caller_waits_and_is_told_afterwards() -> None:
    let_go = asyncio.Event()
    done: list[int] = []

    async def work() -> None:
        await let_go.wait()
        done.append(1)

    call = asyncio.ensure_future(finish(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert done == [1]


async def test_a_failure_counts_more_than_the_cancellation() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(0)
        raise ValueError("broken")

    call = asyncio.ensure_future(finish(work()))
    await begun.wait()
    call.cancel()
    with pytest.raises(ValueError, match="broken"):
        await call


async def test_the_result_comes_back() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_work_beside_a_block_is_over_when_the_block_failed() -> None:
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    with pytest.raises(ValueError, match="block"):
        async with beside(work()):
            raise ValueError("block")
    assert done == [1]


async def test_what_failed_beside_a_block_is_raised_where_it_is_awaited() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    async with beside(work()) as task:
        with pytest.raises(ZeroDivisionError):
            await task
    async with beside(work()):
        pass
