"""Tests under a kernel that lacks a system call, as an older one does (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, ParamSpec

import pytest

from memd.hostmem import libc
from tests.conftest import NOT_HERE

P = ParamSpec("P")

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ERRNO = 0x00050000
_SECCOMP_RET_ALLOW = 0x7FFF0000
# Load a word of the call, jump unless it is equal, return a constant.
_LOAD, _UNLESS, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARGUMENTS_AT = 0, 16


class Lacking(NamedTuple):
    """A system call that fails.

    Attributes:
        number: of the call.
        second: its second argument, if only calls with that one fail.
        error: what it fails with.
    """

    number: int
    second: int | None = None
    error: int = errno.ENOSYS


# Numbered as libc.py says: one numbering of three kinds of machine, but for this call.
IOCTL = 16 if os.uname().machine == "x86_64" else 29

OPENAT2 = Lacking(437)
"""Forbidden by the filters of some container engines."""


def without(call: Lacking, only_if: str = "") -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A test that runs in a thread in which a call fails; others are not affected.

    Args:
        call: it.
        only_if: the parameter of the test that says whether it does; always, if empty.
    """

    def decorate(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*arguments: P.args, **named: P.kwargs) -> None:
            if only_if and not named[only_if]:
                test(*arguments, **named)
                return
            with ThreadPoolExecutor(1) as pool:
                pool.submit(_lack, call).result()
                pool.submit(test, *arguments, **named).result()

        return run

    return decorate


def _lack(call: Lacking) -> None:
    """Have a call fail in this thread from now on."""
    tests = [(_NUMBER_AT, call.number)]
    if call.second is not None:
        tests.append((_ARGUMENTS_AT + 8, call.second))
    program = b""
    for left, (at, value) in zip(range(len(tests), 0, -1), tests, strict=True):
        program += _instruction(_LOAD, at) + _instruction(_UNLESS, value, 2 * left - 1)
    program += _instruction(_RETURN, _SECCOMP_RET_ERRNO | call.error)
    program += _instruction(_RETURN, _SECCOMP_RET_ALLOW)
    held = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("H6xP", len(program) // 8, ctypes.addressof(held))
    prctl: Any = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, head, 0, 0
    ):
        pytest.skip(f"{NOT_HERE}seccomp: {libc.os_error(ctypes.get_errno()).strerror}")


def _instruction(code: int, value: int, unless: int = 0) -> bytes:
    """An instruction of a filter (struct sock_filter)."""
    return struct.pack("HBBI", code, 0, unless, value)
