"""The faults that were added, and which of them a message or a system call meets."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from memd.errors import QMPError
from memd.faulty.fault import Effect, Fault, Spec
from memd.json_types import JSONObject
from memd.places import Account, Share


class FaultRegistry:
    """All faults of a daemon, in the order in which they were added.

    Args:
        account: counts them.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        # Each with what it counts as.
        self._faults: dict[str, tuple[Fault, Share]] = {}
        self._made = 0
        # System calls are counted in whatever thread makes them.
        self._lock = threading.Lock()

    def add(self, spec: Spec) -> str:
        """Add a fault; its name.

        Raises:
            QMPError: the members contradict each other, or the name is taken.
        """
        id = spec.get("id")
        while id is None:
            self._made += 1
            id = f"fault{self._made}" if f"fault{self._made}" not in self._faults else None
        if id in self._faults:
            raise QMPError(f"Duplicate ID '{id}' for fault")
        fault = Fault(id, spec)
        counted = self._account.charge(spec)
        with self._lock:
            self._faults[id] = fault, counted
        return fault.id

    def remove(self, id: str) -> None:
        """Take a fault away.

        Raises:
            QMPError: there is none of that name.
        """
        with self._lock:
            found = self._faults.pop(id, None)
        if found is None:
            raise QMPError(f"fault '{id}' not found")
        found[1].end()

    def clear(self) -> None:
        """Take all faults away."""
        for _fault, counted in self._faults.values():
            counted.end()
        with self._lock:
            self._faults.clear()

    def list(self) -> list[JSONObject]:
        """The faults as `TestFaultInfo`."""
        return [
            {"id": fault.id, "fault": fault.spec, "seen": fault.seen, "applied": fault.applied}
            for fault, _counted in self._faults.values()
        ]

    def _of(self, scope: str) -> Iterator[Fault]:
        return (fault for fault, _counted in self._faults.values() if fault.scope == scope)

    def effect(self, scope: str, arguments: object = None, **facts: object) -> Effect | None:
        """The effect of those faults of a scope that something meets; None for no effect.

        Each is counted. From any thread.

        Args:
            arguments: a command's.
            facts: what else is known of it, see `Fault.is_for`.
        """
        with self._lock:
            faults = [
                fault
                for fault in self._of(scope)
                if fault.is_for(arguments, **facts) and fault.count()
            ]
        return Effect(faults) if faults else None

    @property
    def has_events(self) -> bool:
        """Whether there are faults of events."""
        return any(self._of("event"))

    def version(self) -> Spec | None:
        """The version that is to be told, or None."""
        specs = (fault.spec for fault in self._of("greeting"))
        return next((spec["version"] for spec in specs if "version" in spec), None)

    def listed(self) -> set[str]:
        """The commands that are told of, though there may be none such."""
        faults = self._of("command")
        return {fault.spec["command"] for fault in faults if fault.spec.get("listed")}
