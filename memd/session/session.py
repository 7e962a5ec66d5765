"""A client's conversation: what it sent, what runs, what it is answered.

A session is fed bytes and writes bytes to its `Transport`; it knows neither
sockets nor threads. Commands run one after another and are answered in their
order. One that waits for something (`memd.work`) is stepped again once that is
done, and the conversation waits for it, unless the client negotiated `oob`: then
up to `QUEUE_LIMIT` commands queue behind it and out-of-band commands overtake
(QMP specification, section 2.3.1; limits observed on QEMU 10.0.2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from memd.compat import Compat
from memd.errors import QMPError, forget_frames
from memd.json_types import JSON, JSONObject
from memd.places import ANYBODY, USER, Places
from memd.session.descriptor import Descriptor
from memd.session.envelope import is_out_of_band, open_envelope
from memd.session.peer import Peer
from memd.session.state import NEXT, Phase, Transition
from memd.wire import MORE, NEED_DATA, Decoder, Large, encode
from memd.wire.large import LARGE
from memd.work import Constant, Encoded, Event, Job, Outcome, Pieces, Resume, Start, Wait, follow

if TYPE_CHECKING:
    from memd.wire.readline import LineReader

# To look a member up in its class takes Python 3.11 ten times as long as to read a name.
_NEGOTIATING, _CLOSED = Phase.NEGOTIATING, Phase.CLOSED
_OPEN = (Phase.COMMANDS, _NEGOTIATING)

QUEUE_LIMIT = 8
"""In-band commands that may wait behind a running one once `oob` is on."""


MAX_FDS = 16
"""Descriptors taken with one message; QEMU's socket chardev takes as many
(observed on QEMU 10.0.2)."""

MOST_BYTES = 2 << 20
"""Bytes of a message, except of one that carries memory. A secret of 1 MiB in base64 fits;
no valid path, name or list is longer."""

CARRIES_MEMORY = frozenset(("x-memdev-write",))
"""The commands whose messages may be as long as `--max-message` lets them be."""

_SHORT_ID = 1024
"""Characters of the longest id of a message that takes much (`Large`)."""

BULK = 4096
"""Bytes that come at once from no client that waits for each answer. They wait for
their turn where many do."""


_TOO_MANY_DESCRIPTORS = (
    "too many descriptors of this user's clients are held, or were sent and not read,"
    " see --max-descriptors"
)


class Transport(Protocol):
    """Where a session's bytes go; the server's connection."""

    full: bool
    """Too much is held for a client that does not read: run nothing until `resume`."""

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Queue an answer or event; `fds` are closed once sent or lost."""

    def write_pieces(
        self, head: bytes, pieces: Pieces, tail: bytes, start: Start, done: Callable[[], None]
    ) -> None:
        """Queue an answer that is made as it is read; what is written later follows it.

        Args:
            head, tail: what comes before and after.
            start: starts its jobs.
            done: called once all of it is queued, unless the client is gone by then.
        """

    def pause_reading(self) -> None:
        """Stop feeding the session until `resume_reading`."""

    def resume_reading(self) -> None:
        """Feed the session again."""

    def finish(self) -> None:
        """Close once all that was written has been sent."""

    def peer_gone(self) -> bool:
        """Whether the client has closed both directions."""

    def turn_over(self) -> bool:
        """Whether others are to be served before this client's next command."""

    def crowded(self) -> bool:
        """Whether so many clients wait for their turn that one more had better do, too."""

    def resume_later(self) -> None:
        """Call the session's `resume` when it is this client's turn again."""


class Monitor:
    """A socket's state that outlives a client: its named descriptors.

    Descriptor names given by `getfd` belong to the monitor and survive a
    reconnect (observed on QEMU 10.0.2).

    Attributes:
        id: its name.
        pretty: whether answers are spread over lines.
        readonly: whether only queries are run.
        human: whether it is a human monitor.
        telnet: whether its clients speak telnet.
        fds: the named descriptors, which are closed at the end.
        clients: how many are connected.
        complete: of a human monitor, gives the names that may stand where the last word
            of a line does.
    """

    complete: Callable[[str], Iterable[str]] = staticmethod(lambda _line: ())

    def __init__(
        self,
        id: str,
        *,
        pretty: bool = False,
        readonly: bool = False,
        human: bool = False,
        telnet: bool = False,
    ) -> None:
        self.id = id
        self.human = human
        self.pretty = pretty
        self.readonly = readonly
        self.telnet = telnet
        self.fds: dict[str, Descriptor] = {}
        self.clients = 0

    def client_came(self) -> None:
        """A client has connected."""
        self.clients += 1

    def client_left(self) -> None:
        """A client's connection is gone."""
        self.clients -= 1

    def close(self) -> None:
        """Close every named descriptor."""
        for descriptor in self.fds.values():
            descriptor.close()
        self.fds.clear()


Dispatch = Callable[["Session", str, JSONObject, bool], JSON]
"""Runs a command: (session, name, arguments, out of band) to a JSON value or an
`Outcome`, or to a `Command` that comes to one. They raise `QMPError`."""


class Hub(Protocol):
    """The daemon around a session, as far as that asks anything of it."""

    @property
    def dispatch(self) -> Dispatch:
        """Runs a command."""

    @property
    def descriptors(self) -> Places:
        """Descriptors of clients that the daemon holds, or that are on their way to them."""

    @property
    def refused(self) -> Places:
        """Those that clients have sent, that are not taken, and that are not closed yet."""

    def has_descriptor_to_spare(self, user: int) -> bool:
        """Whether one more may be sent to a user's client."""

    def broadcast(self, events: tuple[Event, ...]) -> None:
        """Send events to every negotiated client."""

    def start(self, wait: Wait, resume: Resume) -> None:
        """Have what a command waits for end, and then go on; see `memd.work.Start`."""

    def shut_down(self, reason: str) -> None:
        """End the daemon once the present answers are written."""


class Session:
    """One client's conversation, from greeting to farewell.

    Attributes:
        monitor: what it goes over.
        peer: who the client is; None where the kernel can't say, as for TCP.
        user: whom the client counts for: its user id, or `ANYBODY`.
        origin: who it is where it comes over a network: its "address", and the
            name in its "certificate", if it showed one that is trusted.
        negotiated: whether the client is in command mode.
        oob_enabled: whether it negotiated out-of-band commands.
    """

    __slots__ = (
        "_arrived",
        "_decoder",
        "_hub",
        "_paused",
        "_phase",
        "_queue",
        "_refused",
        "_running",
        "_running_bytes",
        "_transport",
        "monitor",
        "negotiated",
        "oob_enabled",
        "origin",
        "peer",
        "user",
    )

    def __init__(
        self,
        hub: Hub,
        transport: Transport,
        monitor: Monitor,
        compat: Compat = Compat.V10_0,
        peer: Peer | None = None,
        *,
        max_message: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._hub = hub
        self._transport = transport
        self._decoder: Decoder | LineReader = Decoder(compat, max_message, max_tokens)
        self.monitor = monitor
        self.peer = peer
        self.user = ANYBODY if peer is None else peer.uid
        self.origin: dict[str, str] = {}
        self.negotiated = False
        self.oob_enabled = False
        # Descriptors of the last message that carried any, not yet taken; whether they were
        # refused, as the user has too many.
        self._arrived: list[Descriptor] = []
        self._refused = False
        self._running = False
        # Bytes that the message that runs takes, if it is large.
        self._running_bytes = 0
        # Accepted behind the running command (oob). Further messages wait in the decoder.
        self._queue: deque[Any] = deque()
        self._phase = _NEGOTIATING
        # Whether the transport was told to stop feeding.
        self._paused = False

    def negotiate(self, oob: bool) -> None:
        """The client has negotiated.

        Args:
            oob: whether out-of-band commands as well.
        """
        self._phase = NEXT[self._phase, Transition.NEGOTIATED]
        self.negotiated = True
        self.oob_enabled = oob

    def greet(self, greeting: JSON) -> None:
        """Send the greeting (QMP specification, section 2.2)."""
        self._transport.write(encode(greeting, self.monitor.pretty))

    def receive(self, data: bytes) -> None:
        """Take bytes from the client, and run what they complete."""
        if self._phase not in _OPEN:
            return
        self._decoder.put(data)
        if len(data) > BULK and self._transport.crowded():
            self._wait_for_turn()
            return
        self._pump()
        if self._arrived and not self.negotiated:
            self._close_arrived()

    @property
    def held(self) -> int:
        """Bytes that messages of this client take, roughly: one that is unfinished, those
        that wait, and the one that runs."""
        held = self._decoder.held + self._running_bytes
        for item in self._queue:
            held += item.held if type(item) is Large else LARGE
        return held

    @property
    def unfinished(self) -> int:
        """Bytes that the client's unfinished message takes."""
        return self._decoder.unfinished

    def cut_off(self, text: str) -> None:
        """Tell the client why, and take nothing more from it; what runs for it still ends."""
        if self._phase is _CLOSED:
            return
        self._answer(QMPError(text), None, has_id=False)
        self._close()
        self._transport.finish()

    def receive_fds(self, fds: list[int]) -> None:
        """Take descriptors that came along; those not taken before are closed.

        As QEMU's socket chardev does, which keeps one message's (observed on
        QEMU 10.0.2). Where no command takes any they are closed at once: on a
        read-only monitor, and if the client has not negotiated once what came with
        them has been run.
        """
        self._close_arrived()
        places, user = self._hub.descriptors, self.user
        taken, beyond = fds[:MAX_FDS], fds[MAX_FDS:]
        self._refused = not places.has_free_place(user, len(taken))
        if self._refused or self.monitor.readonly:
            taken, beyond = [], fds
        places.take(user, len(taken))
        self._arrived = [Descriptor(fd, places, user) for fd in taken]
        for fd in beyond:
            self._hub.refused.take(user)
            Descriptor(fd, self._hub.refused, user).close()

    def take_fd(self) -> Descriptor | None:
        """The first descriptor that came along; the others of its message are closed.

        Raises:
            QMPError: it was closed, as the client's user has too many.
        """
        if not self._arrived:
            if self._refused:
                self._refused = False
                raise QMPError(_TOO_MANY_DESCRIPTORS)
            return None
        first = self._arrived.pop(0)
        self._close_arrived()
        return first

    def check_descriptor_to_send(self) -> None:
        """See that a descriptor may be sent along with an answer; raises `QMPError`."""
        if not self._hub.has_descriptor_to_spare(self.user):
            raise QMPError(_TOO_MANY_DESCRIPTORS)

    def _close_arrived(self) -> None:
        for descriptor in self._arrived:
            descriptor.close()
        self._arrived = []

    def receive_eof(self) -> None:
        """The client will send no more.

        Without `oob` all that it sent is answered first, then its connection
        is closed; with it, what is queued is dropped (observed on QEMU 10.0.2).
        """
        if self._phase not in _OPEN:
            return
        self._phase = NEXT[self._phase, Transition.CLIENTS_END]
        if self.oob_enabled or self._transport.peer_gone():
            self._drop()
        self._pump()

    def lost(self) -> None:
        """The connection is gone: drop what waits, close what was not taken."""
        self._close()
        self.negotiated = False
        self._close_arrived()

    def send_event(self, encoded: bytes) -> None:
        """Send an event to this client, if it has negotiated."""
        if self.negotiated:
            self._transport.write(encoded)

    def resume(self) -> None:
        """The transport is no longer full: go on with what waits."""
        self._pump()

    def _pump(self) -> None:
        """Run or queue what waits, as far as the rules allow."""
        queue, transport, decoder = self._queue, self._transport, self._decoder
        begun = False
        while not (transport.full or self._phase is _CLOSED):
            if self._running and (not self.oob_enabled or len(queue) >= QUEUE_LIMIT):
                break
            if begun:
                if not (queue or decoder.pending):
                    break
                if transport.turn_over():
                    self._wait_for_turn()
                    return
            begun = True
            if queue and not self._running:
                self._run(queue.popleft())
                continue
            item = decoder.next()
            if item is NEED_DATA:
                break
            if item is MORE:
                continue
            if not self._running or is_out_of_band(item):
                self._run(item)
            else:
                queue.append(item)
        if self._running and (not self.oob_enabled or decoder.pending or len(queue) >= QUEUE_LIMIT):
            self._pause(True)
        elif self._phase in _OPEN:
            self._pause(False)
        elif not (self._running or queue or decoder.pending):
            transport.finish()

    def _pause(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _wait_for_turn(self) -> None:
        self._pause(True)
        self._transport.resume_later()

    def _run(self, item: Any) -> None:
        held = 0
        if type(item) is not dict:
            if type(item) is Large:
                held = item.held
                item = _refusal(item.value, item.size) or item.value
            if isinstance(item, QMPError):
                self._answer(item, None, has_id=False)
                return
        has_id = type(item) is dict and "id" in item
        request_id = item["id"] if has_id else None
        result: Any
        # What a connection reads runs in a context that has it.
        before = None if USER.get() == self.user else USER.set(self.user)
        try:
            name, arguments, oob = open_envelope(item, self.oob_enabled)
            result = self._hub.dispatch(self, name, arguments, oob)
            if type(result) is CoroutineType:
                wait = result.send(None)
                if type(wait) is Job:
                    wait.is_first = True
                self._running = True
                self._running_bytes = held
                follow(
                    result,
                    wait,
                    self._start,
                    lambda value, error: self._command_ended(value, error, request_id, has_id),
                )
                return
        except StopIteration as end:
            # It had nothing to wait for.
            result = end.value
        except QMPError as error:
            forget_frames(error)
            result = error
        finally:
            if before is not None:
                USER.reset(before)
        self._answer(result, request_id, has_id)

    def _start(self, wait: Wait, resume: Resume) -> None:
        """Start what its command waits for; see `memd.work.Start`."""
        if type(wait) is Job:
            wait.user = self.user
        self._hub.start(wait, resume)

    def _command_ended(
        self, result: JSON, error: BaseException | None, request_id: JSON, has_id: bool
    ) -> None:
        """A command that waited has ended."""
        if error is not None:
            forget_frames(error)
            result = error
        self._running_bytes = 0
        self._running = False
        self._answer(result, request_id, has_id)
        if not self._running:
            self._go_on()

    def _go_on(self) -> None:
        """Its answer is written."""
        self._running = False
        if (self._queue or self._decoder.pending) and self._transport.peer_gone():
            self.lost()
        self._pump()

    def _answer(self, result: JSON, request_id: JSON, has_id: bool) -> None:
        answer: JSONObject
        if type(result) is dict and not (result or self.monitor.pretty):
            # As most commands are answered.
            self._transport.write(_around(b"{}", request_id, has_id))
            return
        if type(result) is Constant:
            if not self.monitor.pretty:
                self._transport.write(_encode_constant(result, request_id, has_id))
                return
            result = result.value
        elif type(result) is Encoded:
            if not self.monitor.pretty:
                self._transport.write(_around(result.text, request_id, has_id))
                return
            result = result.value()
        elif type(result) is Pieces:
            answer = {"return": {result.member: ""}, **({"id": request_id} if has_id else {})}
            head, _, tail = encode(answer, self.monitor.pretty).partition(b'""')
            self._running = True
            write = self._transport.write_pieces
            write(head + b'"', result, b'"' + tail, self._start, self._go_on)
            return
        fds: tuple[int, ...] = ()
        shutdown = None
        if type(result) is Outcome:
            if result.events:
                self._hub.broadcast(result.events)
            fds, shutdown = result.fds, result.shutdown
            answer = {"return": result.value}
        elif isinstance(result, QMPError):
            if result.events:
                self._hub.broadcast(result.events)
            answer = {"error": {"class": result.error_class, "desc": result.desc}}
        else:
            answer = {"return": result}
        if has_id:
            answer["id"] = request_id
        self._transport.write(self._encode(answer), fds)
        if shutdown is not None:
            self._close()
            self._hub.shut_down(shutdown)

    def _encode(self, answer: JSONObject) -> bytes:
        return encode(answer, self.monitor.pretty)

    def _close(self) -> None:
        self._phase = NEXT[self._phase, Transition.CLOSE]
        self._drop()

    def _drop(self) -> None:
        """Forget all that was not run yet."""
        self._queue.clear()
        self._decoder.reset()


def _refusal(message: Any, size: int) -> QMPError | None:
    """Why a message that takes much is not run, if so."""
    given = message if type(message) is dict else {}
    id = given.get("id")
    # It is sent back in one go.
    if type(id) in (dict, list) or (type(id) is str and len(id) > _SHORT_ID):
        return QMPError(f"a message of so many bytes has an 'id' of {_SHORT_ID} characters at most")
    if size > MOST_BYTES and given.get("execute") not in CARRIES_MEMORY:
        return QMPError(f"only x-memdev-write takes more than {MOST_BYTES} bytes")
    return None


def _encode_constant(constant: Constant, request_id: JSON, has_id: bool) -> bytes:
    if constant.encoded is None:
        constant.encoded = encode(constant.value).rstrip()
    return _around(constant.encoded, request_id, has_id)


def _around(text: bytes, request_id: JSON, has_id: bool) -> bytes:
    """An answer around a value that is in JSON already."""
    if not has_id:
        return b'{"return": %b}\r\n' % text
    return b'{"return": %b, "id": %b}\r\n' % (text, encode(request_id).rstrip())
