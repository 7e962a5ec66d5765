"""How things may be called in a schema."""

from __future__ import annotations

import re

# A vendor's own names begin with its reversed domain: "__com.example_name".
_PREFIX = r"(?:__[A-Za-z0-9.-]+_)?"
_NAME = re.compile(_PREFIX + r"[A-Za-z][A-Za-z0-9_-]*")
_ENUM_MEMBER = re.compile(_PREFIX + r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LOWER = re.compile(_PREFIX + r"[a-z][a-z0-9-]*")
_CAMEL = re.compile(_PREFIX + r"[A-Z](?:[A-Za-z0-9]*[a-z][A-Za-z0-9]*)?")
_UPPER = re.compile(_PREFIX + r"[A-Z][A-Z0-9_]*")


def complaint_about(name: str, use: str, *, excepted: bool = False) -> str | None:
    """What is wrong with a name, or None.

    Args:
        use: "type", "command", "event", "member", "feature", "enum member",
            "branch" or "condition".
        excepted: whether a pragma allows it to break the rule of style
            (letters of the wrong case, underscores).
    """
    pattern = _ENUM_MEMBER if use in ("enum member", "branch") else _NAME
    if not pattern.fullmatch(name):
        return "is not a name"
    plain = name.lower().replace("_", "-")
    if use == "type" and plain.endswith("list"):
        return "ends in 'List', which is reserved"
    if use == "member" and (plain == "u" or plain.startswith("has-")):
        return "is reserved"
    if plain.startswith("q-"):
        return "begins with 'q_', which is reserved"
    if use == "type" and not _CAMEL.fullmatch(name):
        return "is not in CamelCase"
    if use == "event" and not _UPPER.fullmatch(name):
        return "is not in UPPER_CASE"
    if use in ("command", "member", "feature", "enum member", "branch") and not excepted:
        if use in ("enum member", "branch"):
            wrong = name != name.lower() or "_" in name
        else:
            wrong = not _LOWER.fullmatch(name)
        if wrong:
            return "is not in lower case with dashes"
    return None


def folded(name: str) -> str:
    """What two names must not have in common: they differ by more than `-` and `_`."""
    return name.replace("-", "_")
