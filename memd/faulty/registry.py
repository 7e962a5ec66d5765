"""The faults that were added, and which of them a message or a system call meets."""

from __future__ import annotations

import threading
from collections.abc import Callable

from memd.errors import QMPError
from memd.faulty.fault import SCOPES, Effect, Fault, Spec
from memd.json_types import JSONObject
from memd.places import Account, Share


class FaultRegistry:
    """All faults of a daemon, in the order in which they were added.

    Args:
        account: counts them.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._counted: dict[str, Share] = {}
        self._faults: dict[str, Fault] = {}
        self._by_scope: dict[str, list[Fault]] = {scope: [] for scope in SCOPES}
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
        self._counted[id] = self._account.charge(spec)
        with self._lock:
            self._faults[id] = fault
            self._by_scope[fault.scope].append(fault)
        return fault.id

    def remove(self, id: str) -> None:
        """Take a fault away.

        Raises:
            QMPError: there is none of that name.
        """
        with self._lock:
            fault = self._faults.pop(id, None)
            if fault is None:
                raise QMPError(f"fault '{id}' not found")
            self._by_scope[fault.scope].remove(fault)
        self._counted.pop(id).end()

    def clear(self) -> None:
        """Take all faults away."""
        for counted in self._counted.values():
            counted.end()
        self._counted.clear()
        with self._lock:
            self._faults.clear()
            for faults in self._by_scope.values():
                faults.clear()

    def list(self) -> list[JSONObject]:
        """The faults as `TestFaultInfo`."""
        return [
            {"id": fault.id, "fault": fault.spec, "seen": fault.seen, "applied": fault.applied}
            for fault in self._faults.values()
        ]

    def for_command(
        self, client: int, monitor: str, name: str | None, arguments: object
    ) -> Effect | None:
        """The effect of the faults on a command that was received; None for no effect."""
        return self._effect(
            "command",
            lambda fault: fault.is_for(arguments, client=client, monitor=monitor, command=name),
        )

    def for_event(self, client: int, monitor: str, name: str) -> Effect | None:
        """The effect on an event that is about to be sent."""
        return self._effect(
            "event",
            lambda fault: (
                fault.spec["event"] in ("", name) and fault.is_for(client=client, monitor=monitor)
            ),
        )

    def for_greeting(self, client: int, monitor: str) -> Effect | None:
        """The effect on the greeting of a client."""
        return self._effect("greeting", lambda fault: fault.is_for(client=client, monitor=monitor))

    @property
    def has_events(self) -> bool:
        """Whether there are faults of events."""
        return bool(self._by_scope["event"])

    def version(self) -> Spec | None:
        """The version that is to be told, or None."""
        specs = (fault.spec for fault in self._by_scope["greeting"])
        return next((spec["version"] for spec in specs if "version" in spec), None)

    def listed(self) -> set[str]:
        """The commands that are told of, though there may be none such."""
        faults = self._by_scope["command"]
        return {fault.spec["command"] for fault in faults if fault.spec.get("listed")}

    def for_syscall(self, kind: str) -> Effect | None:
        """The effect on a system call that is about to be made; from any thread."""
        with self._lock:
            return self._effect("syscall", lambda fault: fault.is_for(syscall=kind))

    def _effect(self, scope: str, meets: Callable[[Fault], bool]) -> Effect | None:
        """The effect of those faults of a scope that are met; each is counted."""
        faults = [fault for fault in self._by_scope[scope] if meets(fault) and fault.count()]
        return Effect(faults) if faults else None
