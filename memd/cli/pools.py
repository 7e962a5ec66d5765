"""`--pool`: a memory backend as `--object` takes it, without an id, and `count=N`."""

from __future__ import annotations

import json
import re

from memd.cli.json_argument import parse_json_argument
from memd.cli.objects import parse_object
from memd.compat import Compat
from memd.errors import QMPError, unexpected
from memd.json_types import JSONObject

_POOLED = ("memory-backend-memfd", "memory-backend-ram", "memory-backend-shm")
_POOL_ID = "pool"
_COUNT = re.compile("(?<!,),count=([^,]*)")
_MOST = 65535


def parse_pool(text: str, compat: Compat) -> tuple[JSONObject, int]:
    """The arguments for `object-add` except an id, and how many are to be ready.

    Raises:
        QMPError: it can't be.
    """
    if text.startswith("{"):
        given = parse_json_argument(text, compat)
        count = str(given.pop("count", 1))
        text = json.dumps({"id": _POOL_ID, **given})
    else:
        count = (_COUNT.findall(text) or ["1"])[-1]
        text = f"{_COUNT.sub('', text)},id={_POOL_ID}"
    options = parse_object(text, compat)
    if options.pop("id") != _POOL_ID:
        raise unexpected("id")
    if options["qom-type"] not in _POOLED:
        raise QMPError(f"Parameter 'qom-type' expects {', '.join(_POOLED[:-1])} or {_POOLED[-1]}")
    if not (count.isascii() and count.isdecimal() and len(count) <= len(str(_MOST))):
        count = "0"
    if not 1 <= int(count) <= _MOST:
        raise QMPError(f"Parameter 'count' expects a number from 1 to {_MOST}")
    return {**options, "prealloc": True}, int(count)
