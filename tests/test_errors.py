from __future__ import annotations

import errno
import os

from memd.errors import QMPError, command_not_found, device_not_found, printable, shortage


def test_a_refusal_is_generic_unless_said() -> None:
    refusal = QMPError("no such luck", hint="try again")
    assert (refusal.error_class, refusal.desc, refusal.hint) == (
        "GenericError",
        "no such luck",
        "try again",
    )
    assert str(refusal) == "no such luck"


def test_its_text_has_an_end() -> None:
    refusal = QMPError("x" * 65_537)
    assert refusal.desc == str(refusal) == "x" * 65_536


def test_what_may_stand_in_a_line() -> None:
    assert printable("/dev/shm/vm 0é") == "/dev/shm/vm 0é"
    told = printable("a\nmemd: b\r\x1b[31m\x7f\u2028\udcff")
    assert told == r"a\nmemd: b\r\x1b[31m\x7f\u2028\udcff"


def test_the_classes_that_clients_tell_apart() -> None:
    """QAPI's `QapiErrorClass`, as far as the daemon gives them."""
    assert command_not_found("x").error_class == "CommandNotFound"
    assert device_not_found("x").error_class == "DeviceNotFound"
    assert device_not_found("x").hint is None


def test_what_the_system_has_run_out_of_is_told() -> None:
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):
        told = shortage(OSError(number, "x"))
        assert told is not None
        assert told.desc == os.strerror(number)
    told = shortage(MemoryError())
    assert told is not None
    assert told.desc == "Cannot allocate memory"
    told = shortage(RecursionError())
    assert told is not None
    assert told.desc == "what was sent is nested too deeply for this command"
    assert shortage(OSError(errno.EPERM, "x")) is None
    assert shortage(ValueError("secret")) is None
