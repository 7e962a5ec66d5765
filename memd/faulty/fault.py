"""One fault: what it is for, what goes wrong, and how often.

The members are those of `TestFault` in `schemas/test.json`, where they are
described; their types have been checked against it.
"""

from __future__ import annotations

import base64
import errno

from memd.errors import QMPError
from memd.json_types import JSONObject

Spec = JSONObject

SCOPES = ("command", "event", "greeting", "syscall")
"""The members that say what a fault is for."""

_WHERE = {*SCOPES, "id", "arguments", "client", "monitor", "nth", "times"}
_MESSAGE = {
    *("delay", "stall", "events-before", "events-after", "drop", "raw", "raw-base64"),
    *("split", "gather", "disconnect", "cut"),
}
_EFFECTS = {
    "command": _MESSAGE | {"error", "answer", "listed", "run", "answer-id", "no-id"},
    "event": _MESSAGE | {"timestamp"},
    "greeting": _MESSAGE | {"version", "capabilities"},
    "syscall": {"errno", "delay", "stall"},
}

_EXCLUSIVE = (
    *(("error", "answer"), ("answer-id", "no-id"), ("drop", "raw"), ("drop", "raw-base64")),
    ("raw", "raw-base64"),
)


class Fault:
    """A fault that was added.

    Args:
        id: its name.
        spec: its members.

    Attributes:
        scope: one of `SCOPES`.
        seen: how often it was met with what it is for.
        applied: how often it had something go wrong.

    Raises:
        QMPError: the members contradict each other.
    """

    def __init__(self, id: str, spec: Spec) -> None:
        self.id = id
        self.spec = spec
        self.scope = _scope(spec)
        _check(self.scope, spec)
        self.seen = 0
        self.applied = 0
        # An event of no name is any.
        self._facts = {name: spec[name] for name in spec if name != "event" or spec[name]}
        self._first = spec.get("nth", 1)
        times = spec.get("times", 1 if "nth" in spec else 0)
        self._last = self._first + times - 1 if times else None

    def count(self) -> bool:
        """Count one more of what it is for; whether this one goes wrong."""
        self.seen += 1
        if self.seen < self._first or (self._last is not None and self.seen > self._last):
            return False
        self.applied += 1
        return True

    def is_for(self, arguments: object = None, **facts: object) -> bool:
        """Whether it is for this: what it does not name may be anything.

        Args:
            arguments: a command's.
            facts: members of `TestFault`, such as the client's number.
        """
        if any(self._facts.get(name, value) != value for name, value in facts.items()):
            return False
        wanted = self.spec.get("arguments")
        return wanted is None or (
            isinstance(arguments, dict) and bool(wanted.items() <= arguments.items())
        )


def _scope(spec: Spec) -> str:
    found = [name for name in SCOPES if name in spec]
    if len(found) > 1:
        raise QMPError(f"Parameters '{found[0]}' and '{found[1]}' exclude each other")
    if spec.get("greeting") is False:
        raise QMPError("Parameter 'greeting' expects true")
    return found[0] if found else "command"


def _check(scope: str, spec: Spec) -> None:
    allowed = _EFFECTS[scope]
    for name in spec:
        if name not in _WHERE and name not in allowed:
            raise QMPError(f"Parameter '{name}' is not for a fault of {_noun(scope)}")
    if not any(name in allowed for name in spec):
        raise QMPError(f"Nothing is to go wrong: give one of {', '.join(sorted(allowed))}")
    for name in ("nth", "times", "client", "split", "gather"):
        if spec.get(name) == 0:
            raise QMPError(f"Parameter '{name}' expects a number from 1 on")
    for first, second in _EXCLUSIVE:
        if first in spec and second in spec:
            raise QMPError(f"Parameters '{first}' and '{second}' exclude each other")
    raw_bytes(spec)
    if "arguments" in spec and not ("command" in spec and isinstance(spec["arguments"], dict)):
        raise QMPError("Parameter 'arguments' expects an object, and a 'command' beside it")
    if "listed" in spec and not ("command" in spec and "answer" in spec):
        raise QMPError("Parameter 'listed' goes with 'command' and 'answer'")
    if "run" in spec and not ("error" in spec or "answer" in spec):
        raise QMPError("Parameter 'run' goes with 'error' or 'answer'")
    if "cut" in spec and spec.get("disconnect") != "middle":
        raise QMPError("Parameter 'cut' goes with 'disconnect' in the 'middle'")
    if scope != "command" and spec.get("disconnect") == "instead":
        raise QMPError("Only a command has something else done 'instead'")
    if scope == "syscall":
        _check_syscall(spec)


def _check_syscall(spec: Spec) -> None:
    for name in ("client", "monitor"):
        if name in spec:
            raise QMPError(f"Parameter '{name}' is not for a fault of a system call")
    if spec.get("stall") and spec["syscall"] != "populate":
        raise QMPError("Only the system call 'populate' can be stalled")
    if "errno" in spec and errno_of(spec["errno"]) == 0:
        raise QMPError("Parameter 'errno' expects the name of an error, such as ENOMEM")


def _noun(scope: str) -> str:
    noun = "system call" if scope == "syscall" else scope
    return f"an {noun}" if noun == "event" else f"a {noun}"


def raw_bytes(spec: Spec) -> bytes | None:
    """The bytes that are to be sent as they stand, or None.

    Raises:
        QMPError: it is not base64.
    """
    if "raw-base64" in spec:
        try:
            return base64.b64decode(spec["raw-base64"], validate=True)
        except ValueError:
            raise QMPError("Parameter 'raw-base64' expects base64") from None
    raw: str | None = spec.get("raw")
    return None if raw is None else raw.encode("utf-8", "surrogatepass")


def errno_of(name: str) -> int:
    """The number of an error by its name, such as ENOMEM; 0 where there is none."""
    number = getattr(errno, name, 0) if name.startswith("E") else 0
    return number if isinstance(number, int) else 0


class Effect:
    """The effect of all faults on one message.

    Attributes:
        spec: the members; where faults differ, those of the first.
        delay: milliseconds, of all faults together.
        before: the events before it (`TestEvent`).
        after: the events after it.
    """

    def __init__(self, faults: list[Fault]) -> None:
        self.spec: Spec = {}
        self.delay = 0
        self.before: list[Spec] = []
        self.after: list[Spec] = []
        for fault in faults:
            spec = fault.spec
            self.delay += spec.get("delay", 0)
            self.before += spec.get("events-before", ())
            self.after += spec.get("events-after", ())
            answers = "error" in self.spec or "answer" in self.spec
            for name, value in spec.items():
                if not (answers and name in ("error", "answer", "run")):
                    self.spec.setdefault(name, value)

    @property
    def answers(self) -> bool:
        """Whether it is this that answers a command."""
        return "error" in self.spec or "answer" in self.spec
