from __future__ import annotations

import io
import re
from contextlib import redirect_stderr

import pytest

from memd.cli.report import Answered, CommandLineError
from memd.config import Report


def test_a_message_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("memd")
    report.error("no")
    report.error("no", "-name x", "hint")
    report.warning("perhaps", "-name x")
    report.info("so it is")
    assert capsys.readouterr().err == (
        "memd: no\nmemd: -name x: no\nhint\nmemd: -name x: warning: perhaps\nmemd: info: so it is\n"
    )


def test_a_refusal_may_have_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    CommandLineError("a", "b", where="-qmp x", hint="h").tell(Report("memd"))
    assert capsys.readouterr().err == "memd: -qmp x: a\nh\nmemd: -qmp x: b\n"


def test_what_messages_may_begin_with(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("memd")
    report.name = "vm"
    report.error("no")
    report.timestamp = True
    report.error("no")
    plain, timed = capsys.readouterr().err.splitlines()
    assert plain == "vm memd: no"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z vm memd: no", timed)


def test_nobody_reads_it() -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    for stream in (Closed(), None):
        with redirect_stderr(stream):
            Report("memd").error("no")


def test_an_answer_keeps_its_status() -> None:
    answer = Answered("text", 1)
    assert (answer.text, answer.status) == ("text", 1)
