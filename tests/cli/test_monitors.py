from __future__ import annotations

import pytest

from memd.cli.monitors import Monitors
from memd.cli.opts import OptsParser
from memd.cli.reading import Given
from memd.cli.report import Answered, CommandLineError
from memd.compat import Compat
from memd.config import Config, MonitorSpec, Report
from memd.errors import QMPError


def finish(*given: tuple[str, str], extended: bool = False, daemonize: bool = False) -> Config:
    config = Config(Report("memd"))
    config.daemonize = daemonize
    monitors = Monitors(config, OptsParser(config.report), extended=extended)
    for name, value in given:
        each = Given(name, value, f"-{name} {value}")
        if name == "chardev":
            monitors.add_chardev(each)
        elif name == "mon":
            monitors.add_monitor(each)
        else:
            monitors.add_device(each, pretty=name == "qmp-pretty")
    monitors.finish()
    return config


def only(config: Config) -> MonitorSpec:
    (monitor,) = config.monitors
    return monitor


def refusal(*given: tuple[str, str], daemonize: bool = False) -> str:
    """The lines that are said, with their place."""
    try:
        finish(*given, daemonize=daemonize)
    except CommandLineError as error:
        return "; ".join(f"{error.where}: {text}" for text in error.texts)
    except QMPError as error:
        return error.desc
    raise AssertionError("it was taken")


X = ("chardev", "null,id=x")
Y = ("chardev", "null,id=y")


def test_the_long_way() -> None:
    monitor = only(
        finish(
            ("mon", "c0,mode=control,pretty=on,id=m0"),
            ("chardev", "socket,id=c0,path=/s,server=on,wait=off"),
        )
    )
    assert (monitor.id, monitor.mode, monitor.pretty) == ("m0", "control", True)
    found = monitor.chardev
    assert (found.kind, found.path, found.server, found.wait) == ("unix", "/s", True, False)
    assert monitor.where == "-mon c0,mode=control,pretty=on,id=m0"
    assert monitor.chardev.where == "-chardev socket,id=c0,path=/s,server=on,wait=off"
    assert monitor.chardev.id == "c0"


def test_the_short_way() -> None:
    config = finish(("qmp", "unix:/a"), ("qmp-pretty", "unix:/b,server=on"), ("qmp", "null"))
    assert [each.chardev.id for each in config.monitors] == [
        "compat_monitor0",
        "compat_monitor1",
        "compat_monitor2",
    ]
    assert [each.id for each in config.monitors] == [each.id for each in config.chardevs]
    assert [each.pretty for each in config.monitors] == [False, True, False]
    assert [each.mode for each in config.monitors] == ["control"] * 3
    assert config.chardevs[1].where == "-qmp-pretty unix:/b,server=on"


def test_a_device_may_be_there_already() -> None:
    config = finish(X, ("qmp", "chardev:x"), ("qmp", "null"))
    assert [(each.id, each.chardev.id) for each in config.monitors] == [
        ("x", "x"),
        ("compat_monitor0", "compat_monitor0"),
    ]
    assert [each.id for each in config.chardevs] == ["x", "compat_monitor0"]


def test_pretty_in_an_address() -> None:
    assert only(finish(("qmp", "unix:/a,pretty=on"), extended=True)).pretty is True
    assert only(finish(("qmp", "stdio,pretty=on"), extended=True)).pretty is True
    assert only(finish(("qmp-pretty", "unix:/a,pretty=off"), extended=True)).pretty is True
    assert only(finish(("qmp", "unix:/a"), extended=True)).pretty is False


def test_the_mode_that_is_meant() -> None:
    assert only(finish(X, ("mon", "x"))).mode == "readline"
    assert only(finish(X, ("mon", "x"), extended=True)).mode == "control"


def test_chardevs_without_a_monitor_are_kept() -> None:
    config = finish(X, Y, ("mon", "y"))
    assert [each.id for each in config.chardevs] == ["x", "y"]
    assert only(config).chardev.id == "y"


PRETTY = "'pretty' is not compatible with HMP monitors"

REFUSED = [
    ([("mon", "x")], '-mon x: chardev "x" not found'),
    ([("mon", "")], "-mon : Parameter 'chardev' is missing"),
    ([("mon", "mode=foo")], "-mon mode=foo: Parameter 'mode' does not accept value 'foo'"),
    ([("mon", "foo=bar")], "Invalid parameter 'foo'"),
    ([("mon", "x,pretty=maybe")], "Parameter 'pretty' expects 'on' or 'off'"),
    ([X, ("mon", "x,mode=")], "-mon x,mode=: Parameter 'mode' does not accept value ''"),
    ([X, ("mon", "x,pretty=on")], f"-mon x,pretty=on: {PRETTY}"),
    ([("mon", "w,pretty=on")], '-mon w,pretty=on: chardev "w" not found'),
    ([X, ("mon", "x"), ("mon", "x,pretty=on")], f"-mon x,pretty=on: {PRETTY}"),
    ([X, ("mon", "x,id=a"), ("mon", "x,id=b")], "-mon x,id=b: chardev 'x' is already in use"),
    ([X, ("mon", "x,id=a"), ("mon", "x,id=a")], "Duplicate ID 'a' for mon"),
    ([X, ("mon", "x,id=0")], "Parameter 'id' expects an identifier"),
    ([X, X], "Duplicate ID 'x' for chardev"),
    ([("chardev", "null")], "-chardev null: chardev: no id specified"),
    ([("chardev", "")], "-chardev : chardev: no id specified"),
    ([("chardev", "foo,id=x")], "-chardev foo,id=x: 'foo' is not a valid char driver name"),
    (
        [("mon", "w"), ("chardev", "foo,id=x")],
        "-chardev foo,id=x: 'foo' is not a valid char driver name",
    ),
    ([("qmp", "foo")], "-qmp foo: 'foo' is not a valid char driver; -qmp foo: parse error: foo"),
    ([("qmp", "tcp:x")], "-qmp tcp:x: parse error: tcp:x"),
    (
        [("qmp", "unix:s,pretty=on")],
        "-qmp unix:s,pretty=on: Invalid parameter 'pretty'; "
        "-qmp unix:s,pretty=on: parse error: unix:s,pretty=on",
    ),
    (
        [("chardev", "null,id=compat_monitor0"), ("qmp", "null")],
        "-qmp null: Duplicate ID 'compat_monitor0' for chardev; -qmp null: parse error: null",
    ),
    (
        [("qmp", "null"), ("chardev", "null,id=compat_monitor0")],
        "Duplicate ID 'compat_monitor0' for chardev",
    ),
    ([("qmp", "chardev:")], "Parameter 'id' expects an identifier"),
    ([("qmp", "chardev:x")], '-qmp chardev:x: chardev "x" not found'),
    ([X, ("qmp", "chardev:x"), ("qmp", "chardev:x")], "Duplicate ID 'x' for mon"),
    ([X, ("mon", "x"), ("qmp", "chardev:x")], "-qmp chardev:x: chardev 'x' is already in use"),
    (
        [("qmp", "stdio"), ("chardev", "stdio,id=x")],
        "-chardev stdio,id=x: cannot use stdio by multiple character devices",
    ),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_refused(given: list[tuple[str, str]], message: str) -> None:
    assert refusal(*given) == message


def test_a_later_release_complains_in_another_order() -> None:
    config = Config(Report("memd"))
    config.compat = Compat.V11_1
    monitors = Monitors(config, OptsParser(config.report), extended=False)
    monitors.add_monitor(Given("mon", "w,pretty=on", "-mon w,pretty=on"))
    with pytest.raises(CommandLineError) as caught:
        monitors.finish()
    assert caught.value.texts == (PRETTY,)


def test_no_terminal_in_the_background() -> None:
    assert refusal(("qmp", "stdio"), daemonize=True) == (
        "-qmp stdio: cannot use stdio with -daemonize"
    )


@pytest.mark.parametrize(("text", "status"), [("help", 0), ("?", 0), ("socket,help", 1)])
def test_questions(text: str, status: int) -> None:
    with pytest.raises(Answered) as caught:
        finish(("chardev", text))
    assert caught.value.status == status
    assert "socket" in caught.value.text or "server=<bool (on/off)>" in caught.value.text


def test_a_question_waits_for_the_rest_of_the_line() -> None:
    assert refusal(("chardev", "help"), ("qmp", "foo")).startswith("-qmp foo: ")


def test_a_monitor_that_was_made_as_an_object() -> None:
    config = Config(Report("memd"))
    monitors = Monitors(config, OptsParser(config.report), extended=False)
    given = Given("object", "monitor-qmp,...", "-object monitor-qmp,...")
    monitors.add_object(given, {"id": "m0", "chardev": "x", "pretty": True})
    monitors.add_chardev(Given("chardev", "null,id=x", "-chardev null,id=x"))
    monitors.finish()
    monitor = only(config)
    assert (monitor.id, monitor.chardev.id, monitor.pretty) == ("m0", "x", True)
    assert (monitor.mode, monitor.where) == ("control", "")
