from __future__ import annotations

import pytest

from memd.cli.report import Answered
from memd.cli.smp import parse_smp, topology
from memd.errors import QMPError
from memd.qom.topology import NO_PROCESSORS, Processors

Q35 = Processors("pc-q35-10.0", 4096, ("dies", "modules"))


def resolve(*texts: str, processors: Processors = Q35) -> dict[str, int]:
    return topology({k: v for text in texts for k, v in parse_smp(text).items()}, processors)


@pytest.mark.parametrize(
    ("texts", "cpus", "maxcpus", "sockets", "cores"),
    [
        (("1,sockets=1,cores=1,threads=1",), 1, 1, 1, 1),
        (("4",), 4, 4, 1, 4),
        (("2,maxcpus=8,sockets=2",), 2, 8, 2, 4),
        (("8,dies=2",), 8, 8, 1, 4),
        (("2", "sockets=2,cores=1"), 2, 2, 2, 1),
    ],
)
def test_counts(texts: tuple[str, ...], cpus: int, maxcpus: int, sockets: int, cores: int) -> None:
    made = resolve(*texts)
    assert (made["cpus"], made["maxcpus"]) == (cpus, maxcpus)
    assert (made["sockets"], made["cores"]) == (sockets, cores)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "Parameter 'smp.cpus' expects integer"),
        ("2,foo=3", "Parameter 'smp.foo' is unexpected"),
        ("2,clusters=2", "clusters > 1 not supported by this machine's CPU topology"),
        ("5000", "Invalid SMP CPUs 5000. The max CPUs supported by machine 'pc-q35-10.0' is 4096"),
        ("1,dies=4294967296,sockets=2", None),
    ],
)
def test_what_there_can_not_be(text: str, message: str | None) -> None:
    with pytest.raises(QMPError) as caught:
        resolve(text)
    assert message is None or caught.value.desc == message


def test_the_machine_none_has_one() -> None:
    assert resolve("1", processors=NO_PROCESSORS)["maxcpus"] == 1
    with pytest.raises(QMPError, match=r"supported by machine 'none' is 1$"):
        resolve("2", processors=NO_PROCESSORS)


def test_reading() -> None:
    with pytest.raises(QMPError, match=r"^Expected '=' after parameter 'foo'$"):
        resolve("2,foo")
    with pytest.raises(Answered, match=r"^smp-opts options:\n  books=<num>\n") as caught:
        resolve("help")
    assert caught.value.status == 0
