"""A dispatcher that injects faults into answers, and runs the commands that set them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from memd.errors import GENERIC_ERROR, QMPError, missing
from memd.faulty.checks import Expected, difference, unexpected
from memd.faulty.connection import told_event
from memd.faulty.fault import Effect, Spec, raw_bytes
from memd.faulty.hub import FaultyHub
from memd.faulty.replay import Script
from memd.faulty.session import OWN, FaultySession
from memd.faulty.transcript import conversations, load_transcript, read_transcript
from memd.json_types import JSON, JSONObject
from memd.session import Dispatch, Session
from memd.wire.rows import encode_rows
from memd.work import Constant, Job, Outcome, in_turns, value_of

_LISTS = ("query-commands", "query-qmp-schema")


class FaultyDispatcher:
    """Runs commands, some of them otherwise than the daemon would.

    Args:
        dispatch: runs those with which nothing goes wrong.
        hub: what the faults are for.
    """

    def __init__(self, dispatch: Dispatch, hub: FaultyHub) -> None:
        self._dispatch = dispatch
        self._hub = hub

    def __call__(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        """Run a command; see `Dispatcher`."""
        if name.startswith(OWN):
            return self._own(session, name, arguments, oob)
        effect = session.effect if isinstance(session, FaultySession) else None
        if effect is None or not (effect.answers or (effect.delay and not oob)):
            return self._run(session, name, arguments, oob)
        return self._as_told(effect, session, name, arguments, oob)

    async def _as_told(
        self, effect: Effect, session: Session, name: str, arguments: JSONObject, oob: bool
    ) -> JSON:
        """Run a command late, or answer it as its fault says, or both."""
        if effect.delay and not oob:
            seconds, effect.delay = effect.delay / 1000, 0
            given_up = self._hub.undelayed
            if await Job(lambda: given_up.wait(seconds)):
                raise QMPError("the daemon ends or is reset")
        spec = effect.spec
        if effect.answers and not spec.get("run"):
            return _told(spec)
        result = await value_of(self._run(session, name, arguments, oob))
        if not effect.answers:
            return result
        outcome = result if type(result) is Outcome else Outcome(result)
        try:
            # Its events were sent, its descriptors and its end go with it.
            return Outcome(_told(spec), outcome.events, outcome.fds, outcome.shutdown)
        except QMPError:
            # An error carries neither events nor descriptors.
            self._hub.broadcast(outcome.events)
            for fd in outcome.fds:
                os.close(fd)
            raise

    def _run(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        value = self._dispatch(session, name, arguments, oob)
        if name == "query-version" and isinstance(session, FaultySession):
            return self._hub.faults.version() or value
        listed = self._hub.faults.listed() if name in _LISTS else None
        return self._with(listed, name, value) if listed else value

    async def _with(self, listed: set[str], name: str, value: JSON) -> JSON:
        """The value of `query-commands` or `query-qmp-schema`, with further commands in it."""
        found = await value_of(value)
        entries: list[JSON] = found.value if isinstance(found, Constant) else found
        new = sorted(listed - {each["name"] for each in entries})
        if name == "query-commands":
            return [*entries, *({"name": each} for each in new)]
        # What it takes and returns is known to the test alone.
        takes = next(e["name"] for e in entries if e["meta-type"] == "object" and not e["members"])
        any = {"name": "any", "meta-type": "builtin", "json-type": "value"}
        found = [*entries] if any in entries else [*entries, any]
        command = {"meta-type": "command", "arg-type": takes, "ret-type": "any"}
        return [*found, *({"name": each, **command} for each in new)]

    def _own(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        command = self._hub.daemon.schema.commands.get(name)
        if command is None or not session.negotiated:
            # The daemon says it best.
            return self._dispatch(session, name, arguments, oob)
        if oob:
            raise QMPError(f"The command {name} does not support OOB")
        checked = self._hub.daemon.schema.checker(name)(arguments)
        return OWN_HANDLERS[name](self._hub, checked)


def _told(spec: Spec) -> JSON:
    """The value that is to be answered.

    Raises:
        QMPError: it is to be a refusal.
    """
    if "error" in spec:
        error = spec["error"]
        raise QMPError(error["desc"], error.get("class", GENERIC_ERROR))
    return spec["answer"]


def _fault_del(hub: FaultyHub, args: JSONObject) -> JSON:
    if "id" in args:
        hub.faults.remove(args["id"])
    else:
        hub.faults.clear()
    return {}


def _transcript(hub: FaultyHub, args: JSONObject) -> JSON:
    transcript, all = hub.transcript, args.get("all", False)
    messages, following = transcript.since(args.get("since", 0), all=all)
    return {"messages": messages, "next": following, "lost": transcript.lost(all=all)}


def _emit(hub: FaultyHub, args: JSONObject) -> JSON:
    encoded = told_event(args)
    for session in hub.sessions(args.get("client")):
        session.send_event(encoded, early=args.get("early", False))
    return {}


def _send(hub: FaultyHub, args: JSONObject) -> JSON:
    if "raw" in args and "raw-base64" in args:
        raise QMPError("Parameters 'raw' and 'raw-base64' exclude each other")
    data = raw_bytes(args)
    if data is None:
        raise missing("raw")
    for session in hub.sessions(args.get("client")):
        session.send_raw(data)
    return {}


def _answer(hub: FaultyHub, args: JSONObject) -> JSON:
    listed = {"listed": args["listed"]} if "listed" in args else {}
    return {"id": hub.faults.add({"command": args["command"], "answer": args["return"], **listed})}


async def _expect(hub: FaultyHub, args: JSONObject) -> JSON:
    expected = [_expected(each) for each in args["commands"]]
    said, only = hub.transcript.all(), args.get("only", True)
    wrong = await Job(lambda: unexpected(expected, said, only=only))
    if wrong:
        raise QMPError(wrong)
    return {}


def _expected(told: JSON) -> Expected:
    if isinstance(told, str):
        return told
    name = told.get("execute") if isinstance(told, dict) else None
    arguments = told.get("arguments", {}) if isinstance(told, dict) else None
    if type(name) is not str or type(arguments) is not dict:
        raise QMPError(
            "Parameter 'commands' expects names, or objects with 'execute' and 'arguments'"
        )
    return name, arguments


async def _compare(hub: FaultyHub, args: JSONObject) -> JSON:
    if ("filename" in args) == ("messages" in args):
        raise QMPError("One of 'filename' and 'messages' is needed")
    if "filename" in args:
        wanted = await Job(lambda: load_transcript(args["filename"]))
    else:
        try:
            wanted = read_transcript("\n".join(map(json.dumps, args["messages"])))
        except ValueError as error:
            raise QMPError(f"Parameter 'messages' is not a transcript: {error}") from None
    said = hub.transcript.all()
    if wrong := await Job(lambda: difference(wanted, conversations(said))):
        raise QMPError(wrong)
    return {}


async def _replay(hub: FaultyHub, args: JSONObject) -> JSON:
    hub.script = await Job(lambda: Script(args["filename"])) if "filename" in args else None
    return {}


def _replay_status(hub: FaultyHub, args: JSONObject) -> JSON:
    if hub.script is None:
        raise QMPError("nothing is replayed")
    return {"mismatches": hub.script.mismatches, "left": hub.script.left}


async def _reset(hub: FaultyHub, args: JSONObject) -> JSON:
    # First, as one may keep an object from going.
    hub.faults.clear()
    hub.give_up()
    try:
        if hub.daemon.start_again is not None:
            await hub.daemon.start_again()
    finally:
        hub.reset()
    return {}


OWN_HANDLERS: dict[str, Callable[[FaultyHub, JSONObject], JSON]] = {
    "x-test-fault-add": lambda hub, args: {"id": hub.faults.add(args)},
    "x-test-fault-del": _fault_del,
    "x-test-faults": lambda hub, args: encode_rows(in_turns(hub.faults.list())),
    "x-test-transcript": _transcript,
    "x-test-emit": _emit,
    "x-test-send": _send,
    "x-test-expect": _expect,
    "x-test-compare": _compare,
    "x-test-answer": _answer,
    "x-test-replay": _replay,
    "x-test-replay-status": _replay_status,
    "x-test-reset": _reset,
}
"""The commands of `schemas/test.json`."""
