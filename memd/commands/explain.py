"""`x-memdev-explain`: what `object-add` would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject

if TYPE_CHECKING:
    from memd.commands.daemon import Daemon
    from memd.session import Session


async def x_memdev_explain(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`x-memdev-explain`: the explanation; arguments that are wrong are explained, too."""
    # A rare command, for people: what it needs is not imported at start-up.
    from memd.backends.explain import explain, refused
    from memd.commands.qom import owner_of

    try:
        checked = daemon.schema.checker("object-add")(args)
    except QMPError as error:
        return refused(error)
    return await explain(
        daemon.tree, checked, daemon.machine.deny_private_discard, owner=owner_of(session)
    )
