"""`-set GROUP.ID.KEY=VALUE`: a key of an option that stands before it.

Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Container

from memd.cli.opts import OptsList, parse_opts
from memd.cli.reading import Given
from memd.errors import QMPError

_SET = re.compile(r"([^.]{1,63})\.([^.]{1,63})\.([^=]{1,63})=(.*)", re.DOTALL)
_NEVER = ("object", "machine")
_ANY = OptsList("", None, None)


def take_set(found: list[Given], text: str, options: Container[str]) -> None:
    """Add a key to one of the options before it.

    Args:
        found: the options before it.
        text: the argument of `-set`.
        options: the names of those that there are.

    Raises:
        QMPError: there is no such option before it.
    """
    match = _SET.fullmatch(text)
    if match is None:
        raise QMPError(f'can\'t parse: "{text}"')
    group, id, key, value = match.groups()
    if group in _NEVER:
        raise QMPError(f"-set is not supported with {group}")
    if group not in options:
        raise QMPError(f"There is no option group '{group}'")
    for index, each in enumerate(found):
        if each.name == group and not each.value.startswith("{") and _id(each.value) == id:
            more = value.replace(",", ",,")
            found[index] = each._replace(value=f"{each.value},{key}={more}")
            return
    raise QMPError(f'there is no {group} "{id}" defined')


def _id(text: str) -> str | None:
    try:
        return parse_opts(_ANY, text).id
    except QMPError:
        # What is wrong with it is told when it is taken.
        return None
