"""Makes system calls inside another process, by ptrace(2): what they answer is what a guest that took the process over
would be answered. Root's, and for x86-64. Run as a program: a process id, and the calls as JSON on standard input.

A call is a number and up to six arguments: an integer, `{"text": …}` or `{"hex": …}` for bytes in the process's memory,
or `{"result": n}` for what the n-th call answered. The answers are written as JSON: error numbers negative, null for
those that never came because the process, or the thread that asked, was killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ATTACH, DETACH, STEP, GET, SET, OPTIONS = 16, 17, 9, 12, 13, 0x4200
"""ptrace(2)'s requests."""
TELL_OF_EXIT, EXIT_STOP = 0x40, signal.SIGTRAP | 6 << 8
"""Its option to be told of a thread's end, also of one whose process goes on."""
NAMES = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
ROOM = 1024
"""Bytes below the stack that are written; those just below it may be in use."""
PACE = 8
INSTRUCTION = b"\x0f\x05"
"""syscall"""
NOWHERE = (1 << 64) - 1

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long


class Registers(ctypes.Structure):
    """user_regs_struct of sys/user.h"""

    _fields_ = [(name, ctypes.c_uint64) for name in NAMES]


class KilledError(Exception):
    """The process, or the thread, did not survive a call."""


def ask(pid: int, calls: list[list[Any]]) -> list[int | None]:
    """The answers to calls that a process makes, by a process of its own that traces it."""
    argv = [sys.executable, __file__, str(pid)]
    done = subprocess.run(argv, input=json.dumps(calls), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    answers: list[int | None] = json.loads(done.stdout)
    return answers


def trace(request: int, pid: int, data: object = None) -> None:
    if libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def wait(pid: int) -> int:
    """The signal with which it stopped."""
    _, status = os.waitpid(pid, 0x40000000)  # __WALL
    if not os.WIFSTOPPED(status) or status >> 8 == EXIT_STOP:
        raise KilledError
    return os.WSTOPSIG(status)


def place_of_instruction(pid: int) -> int:
    """Where the C library makes a system call."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if re.search(r" r-xp .*/libc\.so", line):
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            with open(f"/proc/{pid}/mem", "rb") as memory:
                memory.seek(begin)
                return begin + memory.read(end - begin).index(INSTRUCTION)
    raise LookupError("the process has no C library")


def call(pid: int, at: int, before: Registers, number: int, arguments: list[Any], answers: list[int | None]) -> int:
    """Make one call."""
    registers = Registers.from_buffer_copy(before)
    room = (before.rsp - ROOM * PACE) & ~15
    for name, argument in zip(ARGUMENTS, arguments, strict=False):
        value = argument
        if isinstance(argument, dict) and "result" in argument:
            value = answers[argument["result"]]
        elif isinstance(argument, dict):
            data = bytes.fromhex(argument["hex"]) if "hex" in argument else argument["text"].encode() + b"\0"
            with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
                memory.seek(room)
                memory.write(data)
            value, room = room, room + ROOM
        setattr(registers, name, value & NOWHERE)
    registers.rax, registers.orig_rax, registers.rip = number, NOWHERE, at
    trace(SET, pid, ctypes.byref(registers))
    while registers.rip == at:
        trace(STEP, pid)
        wait(pid)
        trace(GET, pid, ctypes.byref(registers))
    return ctypes.c_int64(registers.rax).value


def main() -> None:
    pid, calls = int(sys.argv[1]), json.load(sys.stdin)
    answers: list[int | None] = []
    at = place_of_instruction(pid)
    trace(ATTACH, pid)
    wait(pid)
    trace(OPTIONS, pid, TELL_OF_EXIT)
    before = Registers()
    trace(GET, pid, ctypes.byref(before))
    try:
        for number, *arguments in calls:
            answers.append(call(pid, at, before, number, arguments, answers))
        trace(SET, pid, ctypes.byref(before))
        trace(DETACH, pid)
    except KilledError:
        answers += [None] * (len(calls) - len(answers))
    print(json.dumps(answers))  # noqa: T201


if __name__ == "__main__":
    main()
