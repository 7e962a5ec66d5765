"""A session that is recorded, and into whose messages faults are injected."""

from __future__ import annotations

import json
from typing import Any

from memd.faulty.connection import FaultyConnection
from memd.faulty.fault import Effect
from memd.faulty.registry import FaultRegistry
from memd.faulty.replay import Replay
from memd.faulty.transcript import Transcript
from memd.json_types import JSON, JSONObject
from memd.session import Session
from memd.session.envelope import is_out_of_band
from memd.session.session import Hub
from memd.wire.large import Large
from memd.work import Pieces

OWN = "x-test-"
"""The prefix of the commands about faults, which are neither recorded nor go wrong."""

_GREETING = ("version", "capabilities")


class ControlSession(Session):
    """The conversation of one who says what goes wrong: the tested client's events are not his."""

    def send_event(self, encoded: bytes) -> None:
        """Send none."""


class FaultySession(Session):
    """One client's conversation, with what is to go wrong in it.

    Args:
        number: of the client, counted from 1.
        faults: the faults.
        transcript: where everything is recorded.
        replay: what answers instead of the daemon, or None.
        hub: as for `Session`, like all that follows.

    Attributes:
        connection: where what is sent goes.
        number: as above; 0 for one that is not recorded any more.
        effect: what goes wrong with the command that is being run.
    """

    def __init__(
        self,
        number: int,
        faults: FaultRegistry,
        transcript: Transcript,
        replay: Replay | None,
        hub: Hub,
        connection: FaultyConnection,
        *what: Any,
        **limits: Any,
    ) -> None:
        super().__init__(hub, connection, *what, **limits)
        self.connection = connection
        connection.on_write = self._write
        connection.on_end = self._end
        self.number = number
        self._faults = faults
        self._transcript = transcript
        self._replay = replay
        self.effect: Effect | None = None
        # The command that is being answered; None for what is none, "" for one of our own.
        self._command: str | None = None
        self._ended = False
        # Bytes that are not part of a recorded message yet.
        self._received = 0

    @property
    def _who(self) -> JSONObject:
        """What faults may name a client by."""
        return {"client": self.number, "monitor": self.monitor.id}

    def greet(self, greeting: JSON) -> None:
        if self._replay is not None:
            self._say(self._replay.due())
            return
        effect = self.effect = self._faults.effect("greeting", **self._who)
        if effect is not None:
            told = {name: effect.spec[name] for name in _GREETING if name in effect.spec}
            greeting = {"QMP": {**greeting["QMP"], **told}}
        super().greet(greeting)
        self.effect = None

    def receive(self, data: bytes) -> None:
        self._received += len(data)
        super().receive(data)

    def send_event(self, encoded: bytes, *, early: bool = False) -> None:
        """See `Session`.

        Args:
            early: whether it is sent before the negotiation, too.
        """
        if not (self.negotiated or early):
            return
        effect = None
        if self._faults.has_events:
            name = json.loads(encoded)["event"]
            effect = self._faults.effect("event", event=name, **self._who)
        self.connection.send(encoded, (), effect, self._record)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they stand."""
        self.connection.send(data, (), None, self._record)

    def lost(self) -> None:
        self._record_end("client")
        self.connection.lost()
        super().lost()

    def _end(self) -> None:
        """Run nothing more: the client is being disconnected."""
        self._record_end("server")
        super().lost()

    def _record_end(self, side: str) -> None:
        if not self._ended:
            self._ended = True
            self._transcript.ended(self.number, side)

    def _run(self, item: Any) -> None:
        message = item.value if type(item) is Large else item
        name, arguments = _asked(message)
        own = name is not None and name.startswith(OWN)
        if not own:
            self._transcript.heard(self.number, message, self._received)
        self._received = 0
        if self._replay is not None and not own:
            self._say(self._replay.answer(message))
            return
        effect = None
        if not own:
            effect = self._faults.effect("command", arguments, command=name, **self._who)
        if effect is not None and effect.spec.get("disconnect") == "instead":
            self.connection.end()
            return
        before = self._command, self.effect
        self._command, self.effect = "" if own else name, effect
        super()._run(item)
        if self.oob_enabled and is_out_of_band(item):
            # It has overtaken another one, which is still to be answered.
            self._command, self.effect = before

    def _answer(self, result: JSON, request_id: JSON, has_id: bool) -> None:
        if isinstance(result, Pieces):
            self._make_whole(result, request_id, has_id)
            return
        super()._answer(result, request_id, has_id)
        self.effect = None

    def _make_whole(self, pieces: Pieces, request_id: JSON, has_id: bool) -> None:
        """Send an answer as one message, so that it can be recorded, and go wrong."""
        text: list[bytes] = []
        self._running = True

        def take(piece: bytes, error: BaseException | None) -> None:
            if piece:
                text.append(piece)
                pieces.next(self._start, take)
                return
            pieces.close(self._start)
            value = {pieces.member: b"".join(text).decode("ascii")}
            self._command_ended(value, error, request_id, has_id)

        pieces.next(self._start, take)

    def _write(self, data: bytes, fds: tuple[int, ...]) -> None:
        """Send the greeting or an answer."""
        command, effect = self._command, self.effect
        fault = effect is not None and effect.answers

        def record(data: bytes) -> None:
            if command != "":
                self._transcript.sent(self.number, data, command, fault)

        self.connection.send(data, fds, effect, record)

    def _say(self, messages: list[bytes | None]) -> None:
        """Send what a replay has next; None ends the connection."""
        for data in messages:
            if data is None:
                self.connection.end()
            else:
                self.send_raw(data)

    def _record(self, data: bytes) -> None:
        self._transcript.sent(self.number, data, None, False)


def _asked(item: object) -> tuple[str | None, object]:
    """The command that an item asks for and its arguments, as far as it does."""
    if not isinstance(item, dict):
        return None, None
    name = item.get("execute", item.get("exec-oob"))
    return (name if isinstance(name, str) else None), item.get("arguments")
