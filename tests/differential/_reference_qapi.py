"""Compares what two schemas say of themselves, whatever they call their types."""

from __future__ import annotations

from typing import Any

from tests.differential.harness import OWN_TYPES

Entry = dict[str, Any]


class Comparison:
    """Ours beside theirs, both as query-qmp-schema tells them.

    Attributes:
        differences: what differs, each with its path.
    """

    def __init__(self, ours: list[Entry], theirs: list[Entry]) -> None:
        self.ours = {entry["name"]: entry for entry in ours}
        self.theirs = {entry["name"]: entry for entry in theirs}
        self.differences: list[str] = []
        self._seen: set[tuple[str, str]] = set()

    def callable_by_both(self, meta_type: str) -> list[str]:
        """The commands or the events that both have."""
        return sorted(
            name
            for name, entry in self.ours.items()
            if entry["meta-type"] == meta_type and name in self.theirs
        )

    def compare(self, name: str, *, fewer: bool = False) -> list[str]:
        """What differs in a command or an event.

        Args:
            fewer: whether ours may leave out members and branches.
        """
        self.differences = []
        self._seen = set()
        ours, theirs = self.ours[name], self.theirs[name]
        for key in {*ours, *theirs} - {"arg-type", "ret-type"}:
            self._equal(f"{name}: {key}", ours.get(key), theirs.get(key))
        for key in ("arg-type", "ret-type"):
            if key in ours or key in theirs:
                self._types(f"{name}: {key}", ours[key], theirs[key], fewer)
        return self.differences

    def _equal(self, path: str, ours: Any, theirs: Any) -> None:
        if ours != theirs:
            self.differences.append(f"{path}: {ours!r}, theirs {theirs!r}")

    def _types(self, path: str, our_name: str, their_name: str, fewer: bool) -> None:
        if (our_name, their_name) in self._seen:
            return
        self._seen.add((our_name, their_name))
        ours, theirs = self.ours[our_name], self.theirs[their_name]
        self._equal(f"{path}: meta-type", ours["meta-type"], theirs["meta-type"])
        if ours["meta-type"] != theirs["meta-type"]:
            return
        self._equal(f"{path}: features", ours.get("features"), theirs.get("features"))
        kind = ours["meta-type"]
        if kind == "builtin":
            self._equal(path, ours, theirs)
        elif kind == "enum":
            for key in ("members", "values"):
                self._equal(f"{path}: {key}", ours[key], theirs[key])
        elif kind == "array":
            self._types(f"{path}[]", ours["element-type"], theirs["element-type"], fewer)
        elif kind == "alternate":
            self._equal(f"{path}: count", len(ours["members"]), len(theirs["members"]))
            for mine, other in zip(ours["members"], theirs["members"], strict=False):
                self._types(f"{path}|", mine["type"], other["type"], fewer)
        else:
            self._objects(path, ours, theirs, fewer)

    def _objects(self, path: str, ours: Entry, theirs: Entry, fewer: bool) -> None:
        tag = ours.get("tag")
        self._equal(f"{path}: tag", tag, theirs.get("tag"))
        others = theirs["members"]
        names = [member["name"] for member in ours["members"]]
        if fewer:
            others = [member for member in others if member["name"] in names]
        self._equal(f"{path}: members", names, [member["name"] for member in others])
        for mine, other in zip(ours["members"], others, strict=False):
            here = f"{path}.{mine['name']}"
            for key in ("default", "features"):
                absent = "absent"
                self._equal(f"{here}: {key}", mine.get(key, absent), other.get(key, absent))
            if mine["name"] == tag and tag == theirs.get("tag"):
                self._tags(here, mine["type"], other["type"])
            else:
                self._types(here, mine["type"], other["type"], fewer)
        branches = {variant["case"]: variant["type"] for variant in theirs.get("variants", ())}
        for variant in ours.get("variants", ()):
            if variant["case"] in branches:
                self._types(
                    f"{path}.({variant['case']})", variant["type"], branches[variant["case"]], fewer
                )

    def _tags(self, path: str, our_name: str, their_name: str) -> None:
        """A tag that selects branches: ours may know fewer, and some of its own."""
        ours, theirs = self.ours[our_name], self.theirs[their_name]
        known = {member["name"]: member for member in theirs["members"]}
        common = [member for member in ours["members"] if member["name"] in known]
        order = [member for member in theirs["members"] if member in common]
        self._equal(f"{path}: values", common, order)
        own = [member["name"] for member in ours["members"] if member["name"] not in known]
        self._equal(f"{path}: values of ours alone", own, OWN_VALUES.get(path, []))


OWN_VALUES = {
    "object-add: arg-type.qom-type": [*OWN_TYPES],
}
"""Values of tags that memd has and QEMU has not."""
