"""The envelope of a command: `execute`, `exec-oob`, `arguments`, `id`.

QMP specification, section 2.3 ("Issuing Commands"). The texts were observed on
QEMU 10.0.2 and 11.1.3, and so was which of several mistakes is named: the first
in the order of QEMU's hash table, whatever its kind.
"""

from __future__ import annotations

from memd.errors import QMPError
from memd.json_types import JSONObject

_NO_ARGUMENTS: JSONObject = {}


def open_envelope(message: object, oob_enabled: bool) -> tuple[str, JSONObject, bool]:
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


def _open_unusual(message: JSONObject, oob_enabled: bool) -> tuple[str, JSONObject, bool]:
    from memd.qapi.hash_order import object_order

    verb = ""
    for member in object_order(message):
        if member == "execute" or (member == "exec-oob" and oob_enabled):
            if type(message[member]) is not str:
                raise QMPError(f"QMP input member '{member}' must be a string")
            if verb:
                raise QMPError("QMP input member 'execute' clashes with 'exec-oob'")
            verb = member
        elif member == "arguments":
            if type(message[member]) is not dict:
                raise QMPError("QMP input member 'arguments' must be an object")
        elif member != "id":
            raise QMPError(f"QMP input member '{member}' is unexpected")
    if not verb:
        raise QMPError("QMP input lacks member 'execute'")
    return message[verb], message.get("arguments", _NO_ARGUMENTS), verb == "exec-oob"


def is_out_of_band(item: object) -> bool:
    """Whether QEMU takes this input out of the queue and runs it at once.

    Only for a client that negotiated `oob`. A message with `exec-oob` and no
    `execute` qualifies even when it turns out to be wrong.
    """
    return type(item) is dict and "exec-oob" in item and "execute" not in item
