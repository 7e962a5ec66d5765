from __future__ import annotations

import pytest

from memd.cli.numa import NUMA, numa_nodes
from memd.cli.opts import parse_opts
from memd.cli.reading import Given
from memd.cli.report import CommandLineError
from memd.compat import Compat
from memd.config import Config, NumaNode, Report
from memd.devices.kinds import find_kind
from memd.errors import QMPError


def resolve(*texts: str, machine: str = "q35", cpus: int = 4) -> list[NumaNode]:
    given = [(Given("numa", text, f"-numa {text}"), parse_opts(NUMA, text)) for text in texts]
    positions = [{"socket-id": cpu // 2, "core-id": cpu % 2, "thread-id": 0} for cpu in range(cpus)]
    kind = find_kind(machine, Compat.V10_0)
    assert kind is not None
    return numa_nodes(given, kind, {"m0", "m1"}, positions, Config(Report("memd")))


def test_nodes() -> None:
    first, second = resolve("node,nodeid=1,memdev=m1,cpus=2-3", "node,nodeid=0,cpus=0,cpus=1")
    assert (first.nodeid, first.cpus, first.memdev) == (0, [0, 1], None)
    assert (second.nodeid, second.cpus, second.memdev) == (1, [2, 3], "m1")
    assert resolve() == []


def test_distances_are_checked_and_mean_nothing() -> None:
    assert len(resolve("node", "node", "dist,src=0,dst=1,val=20")) == 2


def test_cpus_by_their_places() -> None:
    places = ["cpu,node-id=1,socket-id=1", "cpu,node-id=0,socket-id=0,core-id=1", "cpu,node-id=0"]
    first, second = resolve("node", "node", *places[:2])
    assert (first.cpus, second.cpus) == ([1], [2, 3])
    with pytest.raises(CommandLineError, match="CPU is already assigned to node-id: 1"):
        resolve("node", "node", *places)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("node,memdev=m2",), "memdev=m2 is ambiguous"),
        (("node,cpus=4",), "CPU index (4) should be smaller than maxcpus (4)"),
        (("node,cpus=1", "node,cpus=1"), "CPU is already assigned to node-id: 0"),
        (("node,nodeid=128",), "Max number of NUMA nodes reached: 128"),
        (
            ("node", "dist,src=0,dst=200,val=10"),
            "Parameter 'dst' expects an integer between 0 and 127",
        ),
        (("node", "dist,src=0,dst=3,val=10"), None),
        (("cpu,socket-id=0",), "Missing mandatory node-id property"),
        (("node,initiator=0",), None),
        (("node,mem=1M", "node,memdev=m0"), "Parameter -numa node,mem is not supported by this"),
    ],
)
def test_what_there_can_not_be(texts: tuple[str, ...], message: str | None) -> None:
    with pytest.raises(CommandLineError) as caught:
        resolve(*texts)
    assert caught.value.where == f"-numa {texts[-1] if 'mem=' not in texts[0] else texts[0]}"
    assert message is None or caught.value.texts[0].startswith(message)


def test_a_node_is_missing() -> None:
    with pytest.raises(QMPError, match=r"^numa: Node ID missing: 2$"):
        resolve("node,nodeid=3")


def test_the_machine_none_has_no_nodes() -> None:
    with pytest.raises(CommandLineError, match=r"^NUMA is not supported by this machine-type$"):
        resolve("node", machine="none")


def test_an_id_is_no_option() -> None:
    with pytest.raises(QMPError, match="expects an identifier"):
        resolve("node,id=5")
    with pytest.raises(CommandLineError, match=r"^Invalid parameter 'id'$"):
        resolve("node,id=n")
