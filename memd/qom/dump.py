"""The tree as text, for people: what `info qom-tree` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.qom.object import QObject

if TYPE_CHECKING:
    from memd.qom.tree import Tree


def qom_tree_text(tree: Tree, path: str = "/machine") -> str:
    """What `info qom-tree PATH` of QEMU's human monitor prints.

    Args:
        tree: whose objects.
        path: where to begin, absolute or partial; the default is QEMU's.

    Returns:
        A line an object, by name, two spaces for every level, each line ending
        as the human monitor ends it ("\\r\\n"). A path that leads nowhere, or
        to several, gives one line that says so.
    """
    top, _ambiguous = tree.lookup(path)
    if top is None:
        return f"Path '{path}' could not be resolved.\r\n"
    name = top.name if top.parent is not None or top is tree.root else "(null)"
    lines: list[str] = []
    _add(lines, top, name, "")
    return "".join(lines)


def _add(lines: list[str], at: QObject, name: str, indent: str) -> None:
    lines.append(f"{indent}/{name} ({at.qom_type.name})\r\n")
    children = at.children
    if children:
        for below in sorted(children):
            _add(lines, children[below], below, indent + "  ")
