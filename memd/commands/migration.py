"""Migration: its capabilities and parameters, and what a stand-in has of it besides.

Which capabilities go together, in which order the conflicts are named, and all
texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memd.commands.daemon import Daemon, standin_of
from memd.commands.descriptors import inherited, take_fd
from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.session import Session

if TYPE_CHECKING:
    from memd.standin.channels import Opener
    from memd.standin.chardevs import Held, TakeFd

_NOT_IN_BACKGROUND = (
    *("postcopy-ram", "dirty-bitmaps", "postcopy-blocktime", "late-block-activate"),
    *("return-path", "multifd", "pause-before-switchover", "auto-converge", "release-ram"),
    *("rdma-pin-all", "xbzrle", "x-colo", "validate-uuid", "zero-copy-send"),
)
"""The capabilities that a background snapshot excludes, in the order in which they are named."""


def query_migrate_capabilities(daemon: Daemon, args: JSONObject) -> JSON:
    """Every capability, and whether it is on."""
    on = daemon.migration_capabilities
    return [{"capability": name, "state": name in on} for name in _names(daemon)]


def _names(daemon: Daemon) -> tuple[str, ...]:
    from memd.qapi.types import EnumType

    capability = daemon.schema.type("MigrationCapability")
    return tuple(m.name for m in capability.members) if isinstance(capability, EnumType) else ()


def migrate_set_capabilities(daemon: Daemon, args: JSONObject) -> JSON:
    """Switch capabilities; all of them, or none where the outcome contradicts itself."""
    if daemon.machine.migrating:
        raise QMPError("There's a migration process in progress")
    on = set(daemon.migration_capabilities)
    for status in args["capabilities"]:
        if status["state"]:
            on.add(status["capability"])
        else:
            on.discard(status["capability"])
    for name, other, together, text in _rules(daemon.compat):
        if name in on and (other in on) is together:
            raise QMPError(text.format(name))
    daemon.migration_capabilities = frozenset(on)
    return {}


def _rules(compat: Compat) -> Iterator[tuple[str, str, bool, str]]:
    """The rules, in QEMU's order: a capability that is on, another one, whether that one is
    on too, and the error."""
    early = compat is Compat.V10_0
    no_return = "Capability '{}' requires capability 'return-path'"
    only_plain = "Zero copy only available for non-compressed non-TLS multifd migration"
    if not early:
        yield "x-colo", "return-path", False, no_return
    yield (
        *("postcopy-ram", "x-ignore-shared", True),
        "Postcopy is not compatible with ignore-shared",
    )
    if early:
        yield "postcopy-ram", "multifd", True, "Postcopy is not yet compatible with multifd"
    for name in _NOT_IN_BACKGROUND:
        text = f"Background-snapshot is not compatible with {name}"
        yield "background-snapshot", name, True, text
    yield "zero-copy-send", "multifd", False, only_plain
    yield "zero-copy-send", "xbzrle", True, only_plain
    yield "postcopy-preempt", "postcopy-ram", False, "Postcopy preempt requires postcopy-ram"
    yield "switchover-ack", "return-path", False, no_return
    yield (
        *("dirty-limit", "auto-converge", True),
        "dirty-limit conflicts with auto-converge either of then available currently",
    )
    yield (
        *("dirty-limit", "dirty-limit", True),
        "dirty-limit requires KVM with accelerator property 'dirty-ring-size' set",
    )
    yield "multifd", "xbzrle", True, "Multifd is not compatible with xbzrle"
    yield "mapped-ram", "xbzrle", True, "Mapped-ram migration is incompatible with xbzrle"
    yield "mapped-ram", "postcopy-ram", True, "Mapped-ram migration is incompatible with postcopy"


def migrate_recover(daemon: Daemon, args: JSONObject) -> JSON:
    """Raise `QMPError`: nothing was cut off."""
    raise QMPError("Migrate recover can only be run when postcopy is paused.")


def migrate_pause(daemon: Daemon, args: JSONObject) -> JSON:
    """Raise `QMPError`: nothing migrates."""
    raise QMPError(
        "migrate-pause is currently only supported during postcopy-active or postcopy-recover state"
    )


def _opener(daemon: Daemon, take: TakeFd, *, may_run: bool) -> Opener:
    from memd.standin.channels import Opener

    tree, fd_files = daemon.tree, daemon.compat is Compat.V10_0
    account, roots = tree.objects.account, tree.host.roots
    return Opener(account, roots, take, daemon.fdsets.open, may_run=may_run, fd_files=fd_files)


async def migrate(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`migrate`: begin to send the machine."""
    await begin(daemon, args, take_fd(session))
    return {}


async def begin(daemon: Daemon, args: JSONObject, take: TakeFd) -> None:
    """Begin to send the machine; raises `QMPError`.

    Args:
        take: gives a descriptor that the address names.
    """
    if args.get("resume"):
        raise QMPError("Cannot resume if there is no paused migration")
    opener = _opener(daemon, take, may_run=daemon.config.allow_exec)
    await standin_of(daemon).migration.send(args, opener)


async def migrate_incoming(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """`migrate-incoming`: await a machine, now that clients have set all up."""
    named = take_fd(session)

    def take(name: str) -> Held:
        return inherited(name) if name[:1].isascii() and name[:1].isdecimal() else named(name)

    opener = _opener(daemon, take, may_run=daemon.config.allow_exec)
    await standin_of(daemon).migration.receive(args, opener)
    return {}


async def incoming_at_start(daemon: Daemon, args: JSONObject) -> None:
    """`-incoming`: await a machine; raises `QMPError`."""
    opener = _opener(daemon, inherited, may_run=True)
    await standin_of(daemon).migration.receive(args, opener)
