"""A client of the human monitor (`mode=readline`): it types lines, and sees what they print."""

from __future__ import annotations

from typing import Any

from memd.json_types import JSON, JSONObject
from memd.session.session import Session
from memd.session.state import Phase
from memd.wire.readline import PROMPT, LineReader


class HumanSession(Session):
    """One client's conversation. It is made as `Session` is."""

    __slots__ = ()

    def __init__(self, *what: Any, **more: Any) -> None:
        super().__init__(*what, **more)
        self._decoder = LineReader(self._transport.write, self.monitor.complete)
        self.negotiate(oob=False)

    def greet(self, greeting: JSON) -> None:
        """Send the greeting and a prompt."""
        told = greeting["QMP"]["version"]["qemu"]
        release = f"{told['major']}.{told['minor']}.{told['micro']}"
        text = f"QEMU {release} monitor - type 'help' for more information\r\n"
        self._transport.write(text.encode() + PROMPT)

    def send_event(self, encoded: bytes) -> None:
        """Send none."""

    def _answer(self, result: JSON, request_id: JSON, has_id: bool) -> None:
        super()._answer(result, request_id, has_id)
        if self._phase is not Phase.CLOSED:
            self._transport.write(PROMPT)

    def _encode(self, answer: JSONObject) -> bytes:
        error = answer.get("error")
        text = answer["return"] if error is None else f"Error: {error['desc']}\r\n"
        return str(text).encode("utf-8", "surrogateescape")
