"""Options as `key=value,...` with dotted keys: the way of qemu-storage-daemon's `--object`.

A dot goes down a level ("limits.iops-total"), a level whose keys are all whole
numbers is an array ("host-nodes.0=1,host-nodes.1=3"), `,,` stands for a comma
in a value. Texts and their order were observed on qemu-storage-daemon 10.0.2.
"""

from __future__ import annotations

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.option_text import key_at, split_value

HELP = ("help", "?")
"""The keys that ask what there is, written without a value."""


def parse_either(text: str, compat: Compat, implied: str) -> tuple[JSONObject, bool]:
    """Options in this spelling or as a JSON object, and which it is.

    Args:
        compat: whose JSON.
        implied: as for `parse_keyval`.

    Returns:
        The options, and whether they are JSON: then values have their types.

    Raises:
        QMPError: they can't be read.
    """
    if not text.startswith("{"):
        return parse_keyval(text, implied)[0], False
    from memd.cli.json_argument import parse_json_argument

    return parse_json_argument(text, compat), True


def parse_keyval(text: str, implied: str | None = None) -> tuple[JSONObject, bool]:
    """Take options apart.

    Args:
        text: the options.
        implied: the key of a first value that has none.

    Returns:
        The options, whose values are strings, objects and arrays; and whether
        help was asked for.

    Raises:
        QMPError: for a key that is none, one without a value, keys that
            contradict each other, and an array with a hole.
    """
    from memd.qapi.dotted_keys import Nest, descend, members, put
    from memd.qapi.hash_order import object_order

    options = Nest()
    wants_help = False
    position = 0
    while position < len(text):
        written, key_end = key_at(text, position)
        has_value = text[key_end : key_end + 1] == "="
        if not has_value:
            if written in HELP:
                wants_help, implied = True, None
                position = key_end + 1
                continue
            if implied is not None and written:
                # The value ends at the comma, doubled or not.
                options[implied] = written
                implied = None
                position = key_end + 1
                continue
        implied = None
        where, last = descend(options, written)
        if not has_value:
            raise QMPError(f"Expected '=' after parameter '{written}'")
        value, position = split_value(text, key_end + 1)
        put(where, last, value, written)
    return members(options, object_order), wants_help
