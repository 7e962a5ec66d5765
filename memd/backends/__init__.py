"""The objects that clients make: memory backends and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from memd.backends.base import MEMORY_BACKEND
from memd.backends.file import MEMORY_BACKEND_FILE
from memd.backends.guest_memfd import MEMORY_BACKEND_GUEST_MEMFD
from memd.backends.memfd import MEMORY_BACKEND_MEMFD
from memd.backends.ram import MEMORY_BACKEND_RAM
from memd.backends.secret import SECRET, SECRET_COMMON
from memd.backends.shm import MEMORY_BACKEND_SHM
from memd.backends.thread_context import THREAD_CONTEXT
from memd.backends.tls_creds import TLS_CREDS, TLS_CREDS_X509
from memd.errors import QMPError, bad_identifier, is_identifier
from memd.json_types import JSON
from memd.qom.object import QObject, UserCreatable
from memd.qom.tree import Tree
from memd.work import run_here

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


def register(tree: Tree) -> None:
    """Make the types known to a tree."""
    for each in TYPES:
        tree.add_type(each)


async def create(tree: Tree, options: dict[str, JSON], owner: int | None = None) -> None:
    """`object-add`, after the schema's checks.

    The id is taken from now on; the object is listed once it is whole, and a
    failure leaves nothing behind.

    Args:
        options: the arguments, `qom-type` and `id` among them.
        owner: the user for whom it is made; see `memd.qom.quota`.

    Raises:
        QMPError: it can't be made. QEMU's order of complaints: the id, the
            type, the values, a duplicate id, then (memd's own) how much
            there may be, then the making.
    """
    obj = prepare(tree, options)
    tree.reserve(obj, owner)
    try:
        await obj.complete()
        try:
            for listener in tree.listeners:
                await listener.on_created(obj, options)
            tree.attach(obj)
        except BaseException:
            # The data that it is of stays.
            obj.keep_data()
            await obj.finalize()
            raise
    finally:
        tree.release(obj)


def prepare(tree: Tree, options: dict[str, JSON]) -> UserCreatable:
    """An object with its properties set: not real yet, and not in the tree.

    Args:
        options: the arguments, as for `create`.

    Raises:
        QMPError: it can't be what the options say.
    """
    id = options["id"]
    if not is_identifier(id):
        raise bad_identifier()
    name = options["qom-type"]
    qom_type = tree.type_by_name(name)
    if qom_type is None or qom_type.factory is None:
        raise QMPError(f"invalid object type: {name}")
    obj = qom_type.factory(qom_type, tree, id)
    obj.set_properties(
        {key: value for key, value in options.items() if key not in ("qom-type", "id")}
    )
    return obj


async def delete(tree: Tree, id: str) -> None:
    """`object-del`: the object is gone from the tree, and its id free, at once.

    One that is still being made is given up, by the first who asks: its `object-add`
    is answered with an error, and then this with success.

    Raises:
        QMPError: there is no such object, or it is in use.
    """
    obj = tree.user_object(id)
    if obj is None:
        creation = tree.creation(id)
        if creation is None or creation.given_up or not creation.obj.give_up():
            raise QMPError(f"object '{id}' not found")
        creation.given_up = True
        await creation.ended
        obj = tree.user_object(id)
        if obj is not creation.obj:
            return
        # It was too late to give it up.
    obj.check_delete()
    for listener in tree.listeners:
        listener.on_deleting(obj)
    tree.detach(obj)
    await obj.finalize()
    for listener in tree.listeners:
        await listener.on_deleted(obj)


async def change(tree: Tree, obj: QObject, name: str, value: JSON) -> None:
    """`qom-set`: set a property, of whatever object.

    Raises:
        QMPError: there is no such property, or it refuses.
    """
    with recorded(tree, obj, value):
        changing = obj.set_property(name, value)
        if changing is not None:
            await changing


@contextmanager
def recorded(tree: Tree, obj: QObject, value: JSON = None) -> Iterator[None]:
    """Whatever object changes within, its listeners follow it.

    Args:
        value: what a property is to have.

    Raises:
        QMPError: it is not to change.
    """
    with ExitStack() as changes:
        if isinstance(obj, UserCreatable) and tree.user_object(obj.name) is obj:
            for listener in tree.listeners:
                changes.enter_context(listener.on_changing(obj, value))
        yield


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
            run_here(child.finalize())
