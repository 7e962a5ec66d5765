"""memd's object model within the test's own process, as a side of a comparison.

No server, no socket: a deviation found here is the backends' own. What the
schema's checks would refuse must not be sent.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from memd import backends
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import run_here
from tests.differential.harness import Holdings, Side
from tests.differential.kernel import descriptors
from tests.differential.server import Message, Server
from tests.stepping import close_all


class Here(Server):
    """This process, as far as a side needs a server."""

    __slots__ = ()

    def __init__(self) -> None:
        self.name = "memd"

    @property
    def pid(self) -> int:
        return os.getpid()


class LocalSide(Side):
    """memd's tree in this process, asked as a server would be."""

    __slots__ = ("tree",)

    def __init__(self) -> None:
        self.server = Here()
        self.scratch = Path(tempfile.mkdtemp(prefix="memd-test-"))
        self.tree = Tree()
        backends.register(self.tree)

    def ask(self, command: str, arguments: JSON = None, **members: JSON) -> Message:
        try:
            value = self._execute(command, self.fill(arguments))
        except QMPError as error:
            return self.normal({"error": {"class": error.error_class, "desc": error.desc}})
        return self.normal({"return": value})

    def _execute(self, command: str, arguments: JSON) -> JSON:
        if command == "object-add":
            run_here(self.tree.objects.create(arguments))
            return {}
        if command == "object-del":
            run_here(self.tree.objects.delete(arguments["id"]))
            return {}
        obj = self.tree.resolve(arguments["path"])
        if command == "qom-get":
            return obj.get_property(arguments["property"])
        if command == "qom-set":
            name, value = arguments["property"], arguments["value"]
            run_here(self.tree.objects.change(obj, name, value))
            return {}
        if command == "qom-list":
            found = [{"name": p.name, "type": p.type} for p in obj.qom_type.all_properties.values()]
            for name, child in obj.children.items():
                found.append({"name": name, "type": child.qom_type.child_type})
            return found
        raise ValueError(command)

    def objects(self) -> list[str]:
        return sorted(self.tree.objects.children)

    def holdings(self) -> Holdings:
        return Holdings(self.regions(), descriptors(os.getpid()), self.files(), self.objects())

    def clear(self) -> None:
        close_all(self.tree)
        shutil.rmtree(self.scratch)
