"""The guest that is not there: whether, and when, it does what it is asked for.

What Linux 6.1 does in a QEMU 10.0.2 or 11.1.3, and what is heard of it, was
observed: a DIMM that is plugged in is acknowledged; one that is to go is first
acknowledged, then released or, where its memory can't be emptied, kept.
"""

from __future__ import annotations

from collections.abc import Callable

from memd.config import MachineConfig
from memd.devices.throttle import Later

Act = Callable[[], None]


class Guest:
    """Reacts as `--guest-reacts` says, while the machine runs.

    Attributes:
        running: whether the machine runs.
        started: whether it ever did.
    """

    running = False
    started = False

    def __init__(self, config: MachineConfig, later: Later) -> None:
        self._config = config
        self._later = later
        # What it has been asked for while it stood still.
        self._waiting: list[Act] = []

    @property
    def stands_still(self) -> bool:
        """Whether no part of it, not even its firmware, has ever done anything."""
        return not self.started or self._config.guest_reacts == "never"

    def ask(self, comply: Act, refuse: Act) -> None:
        """Ask for something: one of the two is done, soon, later or never.

        Args:
            comply: what is done where the guest complies.
            refuse: what is done where it refuses.
        """
        reacts = self._config.guest_reacts
        if reacts == "never":
            return
        delay = self._config.guest_delay_ms / 1000 if reacts == "after" else 0.0
        self._soon(delay, refuse if reacts == "refuses" else comply)

    def tell(self, act: Act) -> None:
        """Tell of something that nobody refuses."""
        self.ask(act, act)

    def _soon(self, delay: float, act: Act) -> None:
        if self.running:
            self._later(delay, lambda: self._act(act))
        else:
            self._waiting.append(lambda: self._soon(delay, act))

    def _act(self, act: Act) -> None:
        if self.running:
            act()
        else:
            self._waiting.append(lambda: self._soon(0.0, act))

    def set_running(self, running: bool) -> None:
        """The machine goes on, or stands still."""
        self.running = running
        if running:
            self.started = True
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each()
