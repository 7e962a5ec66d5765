"""What stands around a command: `execute`, `exec-oob`, `arguments`, `id`.

QMP specification, section 2.3 ("Issuing Commands"); the texts and which of
several mistakes is named first were observed on QEMU 10.0.2 and 11.1.3. QEMU
takes an unexpected member in the order of its hash table; here it comes after
the members that have a name.
"""

from __future__ import annotations

from typing import Any

from memd.errors import QMPError

_NO_ARGUMENTS: dict[str, Any] = {}


def open_envelope(message: object, oob_enabled: bool) -> tuple[str, dict[str, Any], bool]:
    """Check a message's outer members.

    Args:
        message: any JSON value that a client sent.
        oob_enabled: whether this client negotiated the `oob` capability.

    Returns:
        the command's name, its arguments (to be read, not changed), and
        whether it is to run out-of-band.

    Raises:
        QMPError: for the first thing wrong, in QEMU's order.
    """
    if type(message) is not dict:
        raise QMPError("QMP input must be a JSON object")
    name = message.get("execute")
    arguments = message.get("arguments", _NO_ARGUMENTS)
    if type(name) is str and type(arguments) is dict:
        expected = 1 + ("arguments" in message) + ("id" in message)
        if len(message) == expected:
            return name, arguments, False
    return _open_unusual(message, oob_enabled)


def _open_unusual(message: dict[str, Any], oob_enabled: bool) -> tuple[str, dict[str, Any], bool]:
    oob = oob_enabled and "exec-oob" in message
    if oob:
        _require_string(message, "exec-oob")
    if "execute" in message:
        _require_string(message, "execute")
    if "arguments" in message and type(message["arguments"]) is not dict:
        raise QMPError("QMP input member 'arguments' must be an object")
    for member in message:
        if member not in ("execute", "arguments", "id") and not (oob and member == "exec-oob"):
            raise QMPError(f"QMP input member '{member}' is unexpected")
    if oob and "execute" in message:
        raise QMPError("QMP input member 'execute' clashes with 'exec-oob'")
    if not oob and "execute" not in message:
        raise QMPError("QMP input lacks member 'execute'")
    name = message["exec-oob"] if oob else message["execute"]
    return name, message.get("arguments", _NO_ARGUMENTS), oob


def _require_string(message: dict[str, Any], member: str) -> None:
    if type(message[member]) is not str:
        raise QMPError(f"QMP input member '{member}' must be a string")


def is_out_of_band(item: object) -> bool:
    """Whether QEMU takes this input out of the queue and runs it at once.

    Only for a client that negotiated `oob`. A message with `exec-oob` and no
    `execute` qualifies even when it turns out to be wrong.
    """
    return type(item) is dict and "exec-oob" in item and "execute" not in item
