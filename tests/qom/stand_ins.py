"""Small types of objects for the tests: backends without memory."""

from __future__ import annotations

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qapi.visit import visit_bool, visit_size, visit_str
from memd.qom import (
    OBJECT,
    LinkProperty,
    MemoryRegion,
    ObjectType,
    Property,
    QObject,
    Tree,
    UserCreatable,
)
from memd.work import Command, Job


class Context(UserCreatable):
    """What a backend's link points at."""

    __slots__ = ()

    def __init__(self, tree: Tree, id: str) -> None:
        super().__init__(CONTEXT, tree, id)


class Backend(UserCreatable):
    """A backend with a property of every sort."""

    __slots__ = ("calls", "context", "frozen", "prealloc", "size")

    def __init__(self, tree: Tree, id: str, size: int = 4096) -> None:
        super().__init__(BACKEND, tree, id)
        self.calls: list[str] = []
        self.context: QObject | None = None
        self.frozen = False
        self.prealloc = False
        self.size = size
        self.add_child(f"{id}[0]", MemoryRegion(tree, size))


def _set_size(backend: Backend, value: JSON) -> None:
    backend.calls.append(f"size={value}")
    if not value:
        raise QMPError("property 'size' doesn't take value '0'")
    backend.size = value


def _stay(backend: Backend) -> None:
    if backend.frozen:
        raise QMPError("cannot change property size")


def _set_prealloc(backend: Backend, value: JSON) -> Command[None] | None:
    backend.calls.append(f"prealloc={value}")
    if backend.parent is not None:
        return _populate(backend)
    backend.prealloc = value
    return None


async def _populate(backend: Backend) -> None:
    await Job(lambda: None)
    backend.prealloc = True


def _set_context(backend: Backend, target: QObject | None) -> None:
    backend.calls.append("prealloc-context")
    backend.context = target


CONTEXT = ObjectType("thread-context", OBJECT, interfaces=("user-creatable",))
ABSTRACT = ObjectType(
    "memory-backend",
    OBJECT,
    abstract=True,
    interfaces=("user-creatable",),
    properties=(
        Property(
            "size",
            "int",
            visit=visit_size,
            get=lambda backend: backend.size,
            set=_set_size,
            guard=_stay,
            description="How much",
        ),
        Property(
            "prealloc",
            "bool",
            visit=visit_bool,
            get=lambda backend: backend.prealloc,
            set=_set_prealloc,
        ),
        LinkProperty(
            "prealloc-context",
            "thread-context",
            follow=lambda backend: backend.context,
            set=_set_context,
        ),
        Property("secret", "string", visit=visit_str, set=lambda backend, value: None),
    ),
)
BACKEND = ObjectType("memory-backend-ram", ABSTRACT)


def new_tree(compat: Compat = Compat.V10_0) -> Tree:
    """A tree that knows these types."""
    tree = Tree(compat)
    for each in (CONTEXT, ABSTRACT, BACKEND):
        tree.add_type(each)
    return tree


def add(tree: Tree, *ids: str) -> list[Backend]:
    """Backends of these ids, listed."""
    made = [Backend(tree, id) for id in ids]
    for each in made:
        tree.objects.reserve(each)
        tree.objects.attach(each)
        tree.objects.release(each)
    return made


def add_context(tree: Tree, id: str) -> Context:
    """A context, listed."""
    context = Context(tree, id)
    tree.objects.attach(context)
    return context


def refusal(error: QMPError) -> tuple[str, str]:
    """What the client sees of an error."""
    return error.error_class, error.desc
