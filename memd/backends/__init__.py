"""The objects that clients make: memory backends and what goes with them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from memd.backends.base import MEMORY_BACKEND
from memd.backends.file import MEMORY_BACKEND_FILE
from memd.backends.guest_memfd import MEMORY_BACKEND_GUEST_MEMFD
from memd.backends.memfd import MEMORY_BACKEND_MEMFD
from memd.backends.ram import MEMORY_BACKEND_RAM
from memd.backends.secret import SECRET, SECRET_COMMON
from memd.backends.shm import MEMORY_BACKEND_SHM
from memd.backends.thread_context import THREAD_CONTEXT
from memd.backends.tls_creds import TLS_CREDS, TLS_CREDS_X509
from memd.errors import QMPError
from memd.outcome import JSON, Blocking
from memd.qom.object import UserCreatable
from memd.qom.tree import Tree

TYPES = (
    MEMORY_BACKEND,
    MEMORY_BACKEND_RAM,
    MEMORY_BACKEND_FILE,
    MEMORY_BACKEND_MEMFD,
    MEMORY_BACKEND_SHM,
    THREAD_CONTEXT,
    MEMORY_BACKEND_GUEST_MEMFD,
    TLS_CREDS,
    TLS_CREDS_X509,
    SECRET_COMMON,
    SECRET,
)

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FURTHER = _FIRST | frozenset("0123456789-._")


def is_identifier(id: str) -> bool:
    """Whether it is an id in QEMU's spelling."""
    return id[:1] in _FIRST and _FURTHER.issuperset(id)


def register(tree: Tree) -> None:
    """Make the types known to a tree."""
    for each in TYPES:
        tree.add_type(each)


def create(tree: Tree, options: dict[str, JSON], owner: int | None = None) -> Blocking | None:
    """`object-add`, after the schema's checks.

    The id is taken from now on; the object is listed once it is whole, and a
    failure leaves nothing behind.

    Args:
        options: the arguments, `qom-type` and `id` among them.
        owner: the user for whom it is made; see `memd.qom.quota`.

    Returns:
        None when the object is there; a `Blocking` where it may take long.

    Raises:
        QMPError: it can't be made. QEMU's order of complaints: the id, the
            type, the values, a duplicate id, then (memd's own) how much
            there may be, then the making.
    """
    obj = prepare(tree, options)
    id = obj.name
    obj.charge = tree.reserve(id, obj.memory_size, owner)
    try:
        slow = obj.complete()
        if slow is None:
            return _list(tree, obj, options)
    except BaseException:
        tree.release(id)
        raise
    return _create_later(tree, obj, slow, options)


def _list(tree: Tree, obj: UserCreatable, options: dict[str, JSON]) -> Blocking | None:
    """Have a whole object kept, and list it; a `Blocking` where its keeper takes long.

    Raises:
        QMPError: it can't be kept; nothing of it is left.
    """
    if tree.keeper is not None:
        try:
            slow = tree.keeper.keep(obj, options)
        except BaseException:
            _undo(obj)
            raise
        if slow is not None:
            return _list_later(tree, obj, slow)
    tree.attach(obj)
    return None


def _list_later(tree: Tree, obj: UserCreatable, slow: Blocking) -> Blocking:
    def finish(result: object) -> JSON:
        try:
            slow.finish(result)
        except BaseException:
            tree.release(obj.name)
            _undo(obj)
            raise
        tree.attach(obj)
        return {}

    return Blocking(slow.work, finish)


def _undo(obj: UserCreatable) -> None:
    """Let an object go that will not be listed; the data that it is of stays."""
    from memd.backends.parking import keep_data

    keep_data(obj)
    slow = obj.finalize()
    if slow is not None:
        slow.finish(slow.work())


def prepare(tree: Tree, options: dict[str, JSON]) -> UserCreatable:
    """An object with its properties set: not real yet, and not in the tree.

    Args:
        options: the arguments, as for `create`.

    Raises:
        QMPError: it can't be what the options say.
    """
    id = options["id"]
    if not is_identifier(id):
        raise QMPError("Parameter 'id' expects an identifier")
    name = options["qom-type"]
    qom_type = tree.type_by_name(name)
    if qom_type is None or qom_type.factory is None:
        raise QMPError(f"invalid object type: {name}")
    obj = qom_type.factory(qom_type, tree, id)
    obj.set_properties(
        {key: value for key, value in options.items() if key not in ("qom-type", "id")}
    )
    return obj


def _create_later(
    tree: Tree, obj: UserCreatable, slow: Blocking, options: dict[str, JSON]
) -> Blocking:
    ended = threading.Event()

    def finish(result: object) -> JSON:
        later = None
        try:
            slow.finish(result)
            later = _list(tree, obj, options)
        finally:
            if later is None:
                tree.release(obj.name)
                ended.set()
        return {} if later is None else _then(later, ended.set)

    def failed(error: BaseException) -> None:
        tree.release(obj.name)
        slow.failed(error)
        ended.set()

    def delete_if_whole(_ended: object) -> JSON | Blocking:
        # It may have been too late to give it up.
        if tree.user_object(obj.name) is not obj:
            return {}
        slow = delete(tree, obj.name)
        return {} if slow is None else slow

    if (cancel := slow.cancel) is not None:

        def give_up() -> Blocking:
            cancel()
            return Blocking(ended.wait, delete_if_whole)

        tree.can_give_up(obj.name, give_up)
    return slow.ending(finish, failed)


def _then(slow: Blocking, tell: Callable[[], None]) -> Blocking:
    """The same work, and that it has ended is told."""

    def finish(result: object) -> JSON:
        try:
            return slow.finish(result)
        finally:
            tell()

    return Blocking(slow.work, finish)


def delete(tree: Tree, id: str) -> Blocking | None:
    """`object-del`: the object is gone from the tree, and its id free, at once.

    One that is still being made is given up: its `object-add` is answered with
    an error, and then this with success.

    Returns:
        None when all it held is let go; a `Blocking` where that may take long.

    Raises:
        QMPError: there is no such object, or it is in use.
    """
    obj = tree.user_object(id)
    if obj is None:
        slow = tree.give_up(id)
        if slow is None:
            raise QMPError(f"object '{id}' not found")
        return slow
    obj.check_delete()
    keeper = tree.keeper
    if keeper is None:
        tree.detach(obj)
        return obj.finalize()
    let_go = keeper.strike(obj)
    tree.detach(obj)
    return let_go(obj.finalize())


def give_up() -> None:
    """End what populates; what it was for is undone by whoever made it."""
    from memd.hostmem import populate

    populate.cancel_all()


def close_all(tree: Tree) -> None:
    """Delete everything, as at the daemon's end.

    What is still being made is given up, and the files made for it go.
    """
    from memd.hostmem import files

    give_up()
    files.remove_unfinished()
    for child in list((tree.objects.children or {}).values()):
        if isinstance(child, UserCreatable):
            tree.detach(child)
            slow = child.finalize()
            if slow is not None:
                slow.finish(slow.work())
