"""A conversation fed by hand: order, blocking commands, out-of-band, the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.errors import QMPError, command_not_found
from memd.json_types import JSON
from memd.places import Places
from memd.session import Monitor, Session
from memd.session.session import MAX_FDS, QUEUE_LIMIT
from memd.session.state import NEXT, Phase
from memd.wire import encode
from memd.work import Constant, Encoded, Event, Job, Outcome, Pieces, Resume, Start, Wait
from tests.descriptors import is_open, wait_for_closing

CONSTANT = Constant([{"name": "x"}])


class Wire:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.full = False
        self.gone = False
        self.reading = True
        self.finished = False
        self.hurried = False
        self.crowd = False
        self.later = 0
        self.sent: list[JSON] = []
        self.lines: list[bytes] = []
        self.done: Callable[[], None] = lambda: None
        self.fds: list[int] = []

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        assert data.endswith(b"\r\n")
        self.sent.append(json.loads(data))
        self.fds += fds

    def write_pieces(
        self, head: bytes, pieces: Pieces, tail: bytes, start: Start, done: Callable[[], None]
    ) -> None:
        text = b"".join(iter(partial(self._piece, pieces, start), b""))
        self.sent.append(json.loads(head + text + tail))
        self.lines.append(head + text + tail)
        self.done = done

    def _piece(self, pieces: Pieces, start: Start) -> bytes:
        made: list[bytes] = []
        pieces.next(start, lambda piece, _error: made.append(piece))
        return made.pop()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def finish(self) -> None:
        self.finished = True

    def peer_gone(self) -> bool:
        return self.gone

    def turn_over(self) -> bool:
        return self.hurried

    def crowded(self) -> bool:
        return self.crowd

    def resume_later(self) -> None:
        self.later += 1


async def slowly(name: str) -> JSON:
    return await Job(lambda: name)


async def twice() -> JSON:
    await Job(lambda: None)
    return await Job(lambda: 2)


class Backstage:
    """A hub whose commands are: echo, slow (blocks until told), fail, leave, negotiate."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Job[JSON], Resume]] = []
        self.run: list[str] = []
        self.reason: str | None = None
        self.session: Session | None = None
        self.descriptors = Places(4, apart=())
        self.refused = Places()

    def dispatch(self, session: Session, name: str, args: dict[str, Any], oob: bool) -> JSON:
        self.run.append(name)
        if name == "qmp_capabilities":
            session.negotiated = True
            session.oob_enabled = "oob" in args.get("enable", [])
            return {}
        if name.startswith("slow"):
            return slowly(name)
        if name == "twice":
            return twice()
        if name == "fail":
            raise command_not_found("no")
        if name == "leave":
            return Outcome(events=(Event("SHUTDOWN"),), shutdown="host-qmp-quit")
        if name == "constant":
            return CONSTANT
        if name == "encoded":
            return Encoded(b'[{"name": "x"}]')
        if name == "pieces":
            made = iter((b"abc", b"def"))
            return Pieces("data", made, Job(lambda: None), lambda: False)
        if name == "give":
            return Outcome({"n": 1}, fds=(77,))
        return args or name

    def has_descriptor_to_spare(self, user: int) -> bool:
        return self.descriptors.has_free_place(user)

    def broadcast(self, events: tuple[Event, ...]) -> None:
        assert self.session is not None
        for event in events:
            self.session.send_event(json.dumps({"event": event.name}).encode() + b"\r\n")

    def start(self, wait: Wait, resume: Resume) -> None:
        assert isinstance(wait, Job)
        self.jobs.append((wait, resume))

    def end_job(self, error: QMPError | None = None) -> None:
        job, resume = self.jobs.pop(0)
        resume(job.work(), error)

    def shut_down(self, reason: str) -> None:
        self.reason = reason


class Talk:
    """A negotiated session with its transport and hub."""

    def __init__(self, *, oob: bool = False) -> None:
        self.wire, self.hub = Wire(), Backstage()
        self.session = Session(self.hub, self.wire, Monitor("m0"))
        self.hub.session = self.session
        enable = ["oob"] if oob else []
        self.say({"execute": "qmp_capabilities", "arguments": {"enable": enable}})
        self.wire.sent.clear()
        self.hub.run.clear()

    def say(self, *messages: Any) -> None:
        """Send all messages in one packet."""
        self.session.receive(b"".join(json.dumps(message).encode() for message in messages))

    @property
    def returns(self) -> list[Any]:
        """Each answer's value, or its error's text; events by name."""
        return [
            answer["event"]
            if "event" in answer
            else answer["return"]
            if "return" in answer
            else answer["error"]["desc"]
            for answer in self.wire.sent
        ]


def ask(name: str, **more: Any) -> dict[str, Any]:
    return {"execute": name, **more}


def test_answers_keep_the_order_of_the_commands() -> None:
    talk = Talk()
    talk.say(ask("a", id=1), ask("fail", id="two"), ask("b", id=[3]), ask("c"))
    assert talk.wire.sent == [
        {"return": "a", "id": 1},
        {"error": {"class": "CommandNotFound", "desc": "no"}, "id": "two"},
        {"return": "b", "id": [3]},
        {"return": "c"},
    ]


@pytest.mark.parametrize("value", [None, 0, "", [], {}, {"a": [1, {}]}, 2.5, False])
def test_any_id_comes_back(value: Any) -> None:
    talk = Talk()
    talk.say(ask("a", id=value), ask("a", id=value, foo=1))
    assert [answer["id"] for answer in talk.wire.sent] == [value, value]


def test_a_malformed_message_takes_its_place_without_an_id() -> None:
    talk = Talk()
    talk.session.receive(b'{"execute": "a"}{"execute": }{"execute": "b"}')
    assert talk.returns == ["a", "JSON parse error, expecting value", "b"]
    assert "id" not in talk.wire.sent[1]


def test_a_blocking_command_holds_back_what_follows() -> None:
    talk = Talk()
    talk.say(ask("a"), ask("slow", id=1), ask("b"), ask("c"))
    assert talk.returns == ["a"]
    assert talk.hub.run == ["a", "slow"]
    assert not talk.wire.reading
    talk.hub.end_job()
    assert talk.returns == ["a", "slow", "b", "c"]
    assert talk.wire.sent[1]["id"] == 1
    assert talk.wire.reading


def test_the_first_job_of_a_command_is_known() -> None:
    talk = Talk()
    talk.say(ask("twice"))
    assert talk.hub.jobs[0][0].is_first
    talk.hub.end_job()
    assert not talk.hub.jobs[0][0].is_first
    talk.hub.end_job()
    assert talk.returns == [2]


def test_a_blocking_command_can_fail() -> None:
    talk = Talk()
    talk.say(ask("slow", id=1), ask("b"))
    talk.hub.end_job(QMPError("out of luck"))
    assert talk.returns == ["out of luck", "b"]


def test_blocking_commands_run_one_at_a_time() -> None:
    talk = Talk()
    talk.say(ask("slow1"), ask("slow2"), ask("b"))
    assert talk.hub.run == ["slow1"]
    talk.hub.end_job()
    assert talk.hub.run == ["slow1", "slow2"]
    talk.hub.end_job()
    assert talk.returns == ["slow1", "slow2", "b"]


def test_out_of_band_overtakes() -> None:
    talk = Talk(oob=True)
    talk.say(ask("slow"), ask("b"), {"exec-oob": "c", "id": 3}, {"exec-oob": "fail"})
    assert talk.returns == ["c", "no"]
    assert talk.wire.reading
    talk.hub.end_job()
    assert talk.returns == ["c", "no", "slow", "b"]


def test_out_of_band_queue_is_eight_long() -> None:
    talk = Talk(oob=True)
    queued = [ask(f"q{number}") for number in range(QUEUE_LIMIT)]
    talk.say(ask("slow"), *queued[:-1], {"exec-oob": "early"})
    assert talk.returns == ["early"]
    assert talk.wire.reading
    talk.say(queued[-1], {"exec-oob": "late"})
    assert talk.returns == ["early"], "a full queue stops reading, out-of-band too"
    assert not talk.wire.reading
    talk.hub.end_job()
    assert talk.returns[1:] == ["slow", *[f"q{number}" for number in range(QUEUE_LIMIT)], "late"]
    assert talk.wire.reading


def test_errors_keep_their_place_in_the_queue() -> None:
    talk = Talk(oob=True)
    talk.say(ask("slow"), ask("b"))
    talk.session.receive(b"}")
    talk.say(ask("c"))
    assert talk.returns == []
    talk.hub.end_job()
    assert talk.returns == ["slow", "b", "JSON parse error, expecting value", "c"]


def test_without_the_capability_nothing_overtakes() -> None:
    talk = Talk()
    talk.say({"exec-oob": "c", "id": 1})
    assert talk.returns == ["QMP input member 'exec-oob' is unexpected"]


def test_a_full_transport_stops_the_commands() -> None:
    talk = Talk()
    talk.wire.full = True
    talk.say(ask("a"), ask("b"))
    assert talk.hub.run == []
    talk.wire.full = False
    talk.session.resume()
    assert talk.returns == ["a", "b"]


def test_events_come_before_the_answer_and_only_to_the_negotiated() -> None:
    talk = Talk()
    talk.say(ask("leave", id=1), ask("never"))
    assert talk.returns == ["SHUTDOWN", {}]
    assert talk.hub.reason == "host-qmp-quit"
    talk.say(ask("never"))
    assert talk.hub.run == ["leave"]
    talk.session.negotiated = False
    talk.session.send_event(b'{"event": "STOP"}\r\n')
    assert talk.returns == ["SHUTDOWN", {}]


def test_half_close_answers_what_was_sent() -> None:
    talk = Talk()
    talk.say(ask("a"), ask("slow"), ask("b"))
    talk.session.receive_eof()
    assert not talk.wire.finished
    talk.hub.end_job()
    assert talk.returns == ["a", "slow", "b"]
    assert talk.wire.finished


def test_half_close_with_oob_drops_what_waits() -> None:
    talk = Talk(oob=True)
    talk.say(ask("slow"), ask("b"))
    talk.session.receive_eof()
    talk.hub.end_job()
    assert talk.hub.run == ["slow"]
    assert talk.wire.finished


def test_a_delayed_negotiation_may_end_after_the_client_has_gone() -> None:
    talk = Talk()
    talk.session.lost()
    talk.session.negotiate(oob=False)
    talk.say(ask("a"))
    assert talk.hub.run == []


def test_a_client_that_left_has_its_waiting_commands_dropped() -> None:
    talk = Talk()
    talk.say(ask("slow"), ask("b"))
    talk.wire.gone = True
    talk.hub.end_job()
    assert talk.hub.run == ["slow"]


def test_a_lost_client_leaves_nothing_behind() -> None:
    talk = Talk()
    talk.say(ask("qmp_capabilities"))
    del talk.hub.run[:]
    read, write = os.pipe()
    talk.session.receive_fds([read, write])
    talk.say(ask("slow"), ask("b"))
    talk.session.lost()
    talk.hub.end_job()
    assert talk.hub.run == ["slow"]
    for fd in (read, write):
        assert not is_open(fd)


def test_only_the_last_messages_descriptors_are_kept() -> None:
    talk = Talk()
    first, second, third = (*os.pipe(), os.dup(0))
    talk.session.receive_fds([first])
    talk.session.receive_fds([second, third])
    taken = talk.session.take_fd()
    assert taken is not None
    assert taken.fd == second
    assert talk.session.take_fd() is None
    for fd in (first, third):
        assert not is_open(fd)
    assert talk.hub.descriptors.taken == 1
    taken.close()
    wait_for_closing()
    assert talk.hub.descriptors.taken == 0


@pytest.mark.parametrize("readonly", [False, True])
def test_descriptors_that_nothing_takes_are_closed(readonly: bool) -> None:
    """Before a client has negotiated, and on monitors without a command that takes any."""
    talk = Talk()
    if readonly:
        talk.session.monitor.readonly = True
    talk.session.negotiated = readonly
    pair = os.pipe()
    talk.session.receive_fds([*pair])
    talk.say(ask("query-name"))
    for fd in pair:
        assert not is_open(fd)
    assert talk.hub.descriptors.taken == 0


def test_descriptors_beyond_a_users_share_are_closed() -> None:
    talk = Talk()
    fds = [os.dup(0) for _ in range(5)]
    talk.session.receive_fds(fds)
    with pytest.raises(QMPError, match="--max-descriptors"):
        talk.session.take_fd()
    assert talk.session.take_fd() is None
    for fd in fds:
        assert not is_open(fd)
    assert talk.hub.descriptors.taken == talk.hub.refused.taken == 0


@pytest.mark.parametrize("count", [MAX_FDS, MAX_FDS + 20])
def test_of_a_message_so_many_descriptors_are_taken(count: int) -> None:
    talk = Talk()
    talk.hub.descriptors = Places()
    fds = [os.dup(0) for _ in range(count)]
    talk.session.receive_fds(fds)
    assert [fd for fd in fds if is_open(fd)] == fds[:MAX_FDS]
    assert talk.hub.descriptors.taken == MAX_FDS
    assert talk.hub.refused.taken == 0
    talk.session.lost()
    assert not any(map(is_open, fds))


@pytest.mark.parametrize("kind", ["constant", "encoded"])
def test_what_is_in_json_reads_like_any_answer(kind: str) -> None:
    talk = Talk()
    talk.say(ask(kind), ask(kind, id={"a": 1}))
    talk.session.monitor.pretty = True
    talk.say(ask(kind, id=2))
    assert talk.wire.sent == [
        {"return": [{"name": "x"}]},
        {"return": [{"name": "x"}], "id": {"a": 1}},
        {"return": [{"name": "x"}], "id": 2},
    ]


@pytest.mark.parametrize("pretty", [False, True])
def test_the_next_command_waits_until_an_answer_is_made(pretty: bool) -> None:
    talk = Talk()
    talk.session.monitor.pretty = pretty
    talk.say(ask("pieces", id='""'), ask("pieces"), ask("b"))
    assert talk.wire.sent == [{"return": {"data": "abcdef"}, "id": '""'}]
    assert (talk.hub.run, talk.wire.reading) == (["pieces"], False)
    answer = {"return": {"data": "abcdef"}, "id": '""'}
    assert talk.wire.lines == [encode(answer, pretty)]
    talk.wire.done()
    assert talk.hub.run == ["pieces", "pieces"]
    talk.session.receive_eof()
    assert not talk.wire.finished
    talk.wire.done()
    assert talk.returns[1:] == [{"data": "abcdef"}, "b"]
    assert talk.wire.finished


def test_commands_out_of_band_run_while_an_answer_is_made() -> None:
    talk = Talk(oob=True)
    talk.say(ask("pieces"), ask("b"), {"exec-oob": "c"})
    assert talk.hub.run == ["pieces", "c"]
    talk.wire.done()
    assert talk.hub.run == ["pieces", "c", "b"]


@pytest.mark.parametrize("id", ["x" * 1025, [], {}, "short", 7, None, True])
def test_no_long_id_comes_back_with_a_long_message(id: JSON) -> None:
    talk = Talk()
    talk.say(ask("a", id=id, arguments={"a": "x" * 300_000}), ask("b", id=id))
    first, second = talk.wire.sent
    assert second == {"return": "b", "id": id}
    if id in ("short", 7, None, True):
        assert first["id"] == id
    else:
        assert first["error"]["desc"] == (
            "a message of so many bytes has an 'id' of 1024 characters at most"
        )
        assert "id" not in first


def test_descriptors_ride_on_their_answer() -> None:
    talk = Talk()
    talk.say(ask("a"), ask("give"))
    assert talk.wire.fds == [77]


@given(st.lists(st.integers(1, 40), max_size=30), st.booleans())
def test_split_anywhere_the_answers_are_the_same(cuts: list[int], oob: bool) -> None:
    stream = b"".join(
        json.dumps(message).encode()
        for message in [ask("a", id=1), ask("fail"), {"nonsense": 1}, ask("b", id={"x": "}"}), 12]
    )
    stream += b" "
    whole, parts = Talk(oob=oob), Talk(oob=oob)
    whole.session.receive(stream)
    at = 0
    for cut in cuts:
        parts.session.receive(stream[at : at + cut])
        at += cut
    parts.session.receive(stream[at:])
    assert parts.wire.sent == whole.wire.sent
    assert len(whole.wire.sent) == 5


def test_a_turn_ends_and_the_rest_waits_for_the_next() -> None:
    talk = Talk()
    talk.wire.hurried = True
    talk.say(*[ask("a", id=number) for number in range(600)])
    assert 0 < len(talk.wire.sent) < 5
    assert not talk.wire.reading
    assert talk.wire.later == 1
    turns = 0
    while talk.wire.later:
        talk.wire.later -= 1
        talk.session.resume()
        turns += 1
    assert [answer["id"] for answer in talk.wire.sent] == list(range(600))
    assert turns > 500
    assert talk.wire.reading


@pytest.mark.parametrize("oob", [False, True])
def test_a_turn_that_ends_before_a_command_that_blocks(oob: bool) -> None:
    talk = Talk(oob=oob)
    talk.wire.hurried = True
    talk.say(ask("slow", id=1), *[ask("a", id=number) for number in range(2, 20)])
    for _ in range(30):
        talk.session.resume()
    assert talk.wire.sent == []
    talk.hub.end_job()
    for _ in range(30):
        talk.session.resume()
    assert [answer["id"] for answer in talk.wire.sent] == list(range(1, 20))
    assert talk.wire.reading


def test_bulk_waits_for_its_turn_where_many_wait() -> None:
    talk = Talk()
    talk.wire.crowd = True
    talk.say(ask("a"))
    assert talk.returns == ["a"]
    talk.say(*[ask("a")] * 1000)
    assert talk.returns == ["a"]
    assert (talk.wire.reading, talk.wire.later) == (False, 1)
    talk.session.resume()
    assert talk.returns == ["a"] * 1001
    assert talk.wire.reading


def test_the_end_while_something_waits_for_its_turn() -> None:
    talk = Talk()
    talk.wire.hurried = True
    talk.say(*[ask("a")] * 5, ask("leave"), *[ask("a")] * 5)
    for _ in range(20):
        talk.session.resume()
    assert talk.returns == ["a"] * 5 + ["SHUTDOWN", {}]
    assert talk.wire.finished


def test_what_is_held_for_a_client() -> None:
    talk = Talk(oob=True)
    assert talk.session.held == 0
    large = json.dumps(ask("slow", arguments={"a": "x" * 300_000})).encode()

    def say(data: bytes) -> None:
        talk.session.receive(data[:50_000])
        talk.session.receive(data[50_000:])

    talk.session.receive(large[:50_000])
    assert 50_000 < talk.session.held == talk.session.unfinished < 60_000
    talk.session.receive(large[50_000:])
    # It runs now, and another one waits.
    assert talk.session.unfinished == 0
    assert 300_000 < talk.session.held < 310_000
    say(large)
    assert 600_000 < talk.session.held < 620_000
    talk.hub.end_job()
    assert 300_000 < talk.session.held < 310_000
    talk.hub.end_job()
    assert talk.session.held == 0


def test_messages_of_small_tokens_are_counted_while_they_wait() -> None:
    """What they take in memory is a hundred times what they are."""
    talk = Talk(oob=True)
    talk.say(ask("slow"))
    message = b'{"execute":"slow","arguments":{"a":[' + b"[]," * 15_000 + b"0]}}"
    for _ in range(3):
        talk.session.receive(message)
    assert talk.session.held > 3 * 45_000 * 192


def test_only_what_carries_memory_may_be_long() -> None:
    talk = Talk()
    text = "x" * (3 << 20)
    data = {"data": text}
    talk.say(ask("x-memdev-write", arguments=data), ask("qom-get", arguments=data))
    talk.say(ask("b", id=text), ask("x-memdev-write", id=text), ask("c", id=1))
    assert talk.hub.run == ["x-memdev-write", "c"]
    assert [len(str(each)) < 100 for each in talk.returns] == [False, True, True, True, True]


def test_an_errors_text_is_bounded() -> None:
    talk = Talk()
    talk.say(ask("x" * 1_500_000 + "?", nonsense=1))
    assert len(talk.returns) == 1


def test_a_conversation_only_moves_on() -> None:
    order = list(Phase)
    for (phase, _), after in NEXT.items():
        assert order.index(after) >= order.index(phase)


def test_a_client_that_is_cut_off() -> None:
    talk = Talk()
    talk.session.receive(b'{"execute": "')
    talk.session.cut_off("too much")
    assert talk.returns == ["too much"]
    assert talk.wire.finished
    assert talk.session.held == 0
    talk.say(ask("a"))
    talk.session.cut_off("again")
    assert talk.returns == ["too much"]


def test_a_client_that_is_cut_off_while_its_command_runs() -> None:
    talk = Talk()
    talk.say(ask("slow"), ask("a"))
    talk.session.cut_off("too much")
    talk.hub.end_job()
    assert talk.hub.run == ["slow"]
    assert talk.returns == ["too much", "slow"]
