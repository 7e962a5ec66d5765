"""`/objects`: creating, changing and deleting clients' objects, and a listener for that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol

from memd.errors import QMPError, bad_identifier, is_identifier
from memd.json_types import JSON, JSONObject
from memd.places import USER, Account, size_of
from memd.qom.builtin_objects import CONTAINER
from memd.qom.object import Paths, QObject
from memd.qom.quota import NOBODY, Quota
from memd.qom.user_creatable import UserCreatable
from memd.work import Completion, Start, begin


class Listener(Protocol):
    """Is told when clients' objects are created, changed and deleted."""

    async def on_created(self, obj: UserCreatable, options: JSONObject) -> None:
        """An object is complete, and is going to be listed.

        Args:
            options: those of `object-add`.

        Raises:
            QMPError: it is not listed, and finalized.
        """

    def on_changing(self, obj: UserCreatable, value: JSON) -> AbstractContextManager[None]:
        """A listed object is going to change: within the context, unless it raises.

        Args:
            value: what a property is to have.

        Raises:
            QMPError: it can't be recorded, and so is not to change.
        """

    def on_deleting(self, obj: UserCreatable) -> None:
        """An object is going to be deleted; nothing of it is gone yet.

        Raises:
            QMPError: it has to stay.
        """

    async def on_deleted(self, obj: UserCreatable) -> None:
        """An object is gone, and so is what it held."""


class Pools(Protocol):
    """Memory that is made before an object asks for it."""

    def has(self, obj: UserCreatable) -> bool | None:
        """Whether memory is ready for an object; None where no pool is for such."""

    def take(self, obj: UserCreatable) -> Any:
        """Memory for an object, which owns it from now on; None where none is ready."""

    def describe(self) -> list[JSON]:
        """The answer of `x-pool-query`."""

    def status(self) -> str:
        """How they are, in a few words."""


class Objects(QObject):
    """The container `/objects`.

    Attributes:
        children: the objects in it, by id; not those that are being made.
        listener: told of changes; None for nobody.
        on_listed: called with an object once it is listed, and with False once it is not.
        pools: the pools of memory; None where there are none.
        quota: limits on what clients make.
        account: what is kept of what clients gave, here and by the stand-in's registers.
    """

    listener: Listener | None = None
    on_listed: Callable[[UserCreatable, bool], None] | None = None
    pools: Pools | None = None

    def __init__(self, tree: Paths) -> None:
        super().__init__(CONTAINER, tree)
        self.children = {}
        self.quota = Quota()
        self.account = Account()
        # Objects that are being made, by id, which is taken.
        self._making: dict[str, UserCreatable] = {}

    # Requests of clients

    def prepare(self, options: JSONObject) -> UserCreatable:
        """An object with its properties set, neither completed nor listed.

        Args:
            options: the arguments, as for `create`.

        Raises:
            QMPError: it can't be what the options say.
        """
        id = options["id"]
        if not is_identifier(id):
            raise bad_identifier()
        name = options["qom-type"]
        qom_type = self.tree.type_by_name(name)
        if qom_type is None or qom_type.factory is None:
            raise QMPError(f"invalid object type: {name}")
        obj: UserCreatable = qom_type.factory(qom_type, self.tree, id)
        properties = options.copy()
        del properties["qom-type"], properties["id"]
        obj.set_properties(properties)
        return obj

    async def create(self, options: JSONObject) -> None:
        """`object-add`, after the schema's checks; it counts for `USER`.

        The id is taken from now on; the object is listed once it is whole, and a
        failure leaves nothing behind.

        Args:
            options: the arguments, `qom-type` and `id` among them.

        Raises:
            QMPError: it can't be made. QEMU's order of complaints: the id, the
                type, the values, a duplicate id, then (memd's own) limits, then the
                allocation.
        """
        obj = self.prepare(options)
        self.reserve(obj)
        try:
            await obj.complete()
            try:
                if self.listener is not None:
                    await self.listener.on_created(obj, options)
                self.attach(obj)
            except BaseException:
                # `discard-data` does not apply.
                obj.keep_data()
                await obj.finalize()
                raise
        finally:
            self.release(obj)

    async def delete(self, id: str) -> None:
        """`object-del`: the object is gone from the tree, and its id free, at once.

        One that is still being made is given up, by the first who asks: its
        `object-add` is answered with an error, and then this with success.

        Raises:
            QMPError: there is no such object, or it is in use.
        """
        obj = self.get(id)
        if obj is None:
            obj = self._making.get(id)
            if obj is None or obj.given_up or not obj.give_up():
                raise QMPError(f"object '{id}' not found")
            obj.given_up = Completion()
            await obj.given_up
            if self.get(id) is not obj:
                return
            # It was too late to give it up.
        obj.check_delete()
        if self.listener is not None:
            self.listener.on_deleting(obj)
        self.detach(obj)
        await obj.finalize()
        if self.listener is not None:
            await self.listener.on_deleted(obj)

    async def delete_every(self) -> list[str]:
        """Delete what clients made, and give up what is being made.

        Returns:
            the ids of those that can't be deleted, as something else uses them.
        """
        left = self._deletable()
        while left:
            for id in left:
                try:
                    await self.delete(id)
                except QMPError:
                    # Another one may use it, which goes first.
                    continue
            before, left = left, self._deletable()
            if len(left) >= len(before):
                break
        return left

    def _deletable(self) -> list[str]:
        return [*self.children, *self._making]

    async def change(self, obj: QObject, name: str, value: JSON) -> None:
        """`qom-set`: set a property, of whatever object.

        Raises:
            QMPError: there is no such property, or it refuses.
        """
        listed = obj if isinstance(obj, UserCreatable) else None
        with self.recorded(obj, value):
            try:
                if listed is not None and listed.texts is not None:
                    # Until it is known how much of it is kept.
                    listed.texts.resize(listed.texts_size + size_of(value))
                changing = obj.set_property(name, value)
                if changing is not None:
                    await changing
            finally:
                if listed is not None and listed.texts is not None:
                    listed.texts.set(listed.texts_size)
                obj.refresh()

    def recorded(self, obj: QObject, value: JSON = None) -> AbstractContextManager[None]:
        """A context in which an object changes, as the listener is told.

        Args:
            value: what a property is to have.
        """
        listed = self.get(obj.name)
        if self.listener is None or listed is not obj:
            return nullcontext()
        return self.listener.on_changing(listed, value)

    def delete_all(self, start: Start) -> Completion:
        """Finalize all objects, as at the daemon's end; the listener is not told.

        A failure is logged and does not stop the others.

        Args:
            start: starts what they wait for.

        Returns:
            set when all are finalized.
        """
        gone = Completion()
        left = 1

        def ended(what: str, _value: object, error: BaseException | None) -> None:
            nonlocal left
            if error is not None:
                import logging

                logging.getLogger("memd").error("cannot free '%s'", what, exc_info=error)
            left -= 1
            if not left:
                gone.set()

        for obj in self.each():
            self.detach(obj)
            left += 1
            begin(obj.finalize(), start, partial(ended, obj.name))
        ended("", None, None)
        return gone

    # Ids, and what is counted

    def each(self) -> list[UserCreatable]:
        """The listed objects, in the order in which they came."""
        return [each for each in self.children.values() if isinstance(each, UserCreatable)]

    def get(self, id: str) -> UserCreatable | None:
        """The listed object of that id, or None."""
        found = self.children.get(id)
        return found if isinstance(found, UserCreatable) else None

    def reserve(self, obj: UserCreatable) -> None:
        """Take an object's id, and what memory it is to have, while it is being made.

        Raises:
            QMPError: the id is taken, or there may be no more.
        """
        id, size = obj.name, obj.memory_size
        if id in self.children or id in self._making or id in CONTAINER.all_properties:
            raise self.duplicate(id)
        pooled = size if self.pools is not None and self.pools.has(obj) else 0
        owner = USER.get()
        self.quota.check(id, size, owner, pooled, obj.descriptors)
        if obj.keeps_texts:
            obj.texts = self.account.charge_bytes(obj.texts_size, owner)
        self._making[id] = obj
        obj.charge = self.quota.charge(size, owner, obj.descriptors)

    def release(self, obj: UserCreatable) -> None:
        """The making of an object has ended; its id is free, unless it is listed."""
        del self._making[obj.name]
        if obj.parent is None:
            _end(obj)
        if obj.given_up is not None:
            obj.given_up.set()

    def attach(self, obj: UserCreatable) -> None:
        """List a whole object as `/objects/<id>`.

        Raises:
            QMPError: another object is listed by that id.
        """
        self.add_child(obj.name, obj)
        if self.on_listed is not None:
            self.on_listed(obj, True)
        obj.refresh()
        if obj.charge is None:
            # Nobody asked for it: it is there, whatever the limits.
            obj.charge = self.quota.charge(obj.memory_size, NOBODY, obj.descriptors)

    def detach(self, obj: UserCreatable) -> None:
        """Take a listed object out; its id is free at once."""
        self.remove_child(obj.name)
        if self.on_listed is not None:
            self.on_listed(obj, False)
        _end(obj)


def _end(obj: UserCreatable) -> None:
    """Count it no more."""
    for each in (obj.charge, obj.texts):
        if each is not None:
            each.end()
