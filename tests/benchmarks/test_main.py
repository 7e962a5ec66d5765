from __future__ import annotations

from pathlib import Path

from benchmarks import __main__ as main
from benchmarks import bare
from benchmarks.figures import Draw, Figure, Samples, Scale, Subject, Take
from benchmarks.servers import Server


def test_sides_take_turns() -> None:
    seen = []

    def measure(scale: Scale, take: Take, draw: Draw, sides: tuple[str, ...]) -> None:
        seen.append((scale.first, sides))
        take("f", "memd", 1.0)
        draw("many", "memd", [(1.0, 2.0)])

    subject = Subject("s", (Figure("f", "F", ""),), measure)
    results, curves = main.run([subject], 2, True, ("memd", "qemu"))
    assert seen == [(True, ("memd", "qemu")), (False, ("qemu", "memd"))]
    assert results[0].values == {"memd": [1.0, 1.0]}
    assert curves == {"many": {"memd": [(1.0, 2.0)]}}


def test_names_are_unique() -> None:
    names = [figure.name for subject in main.SUBJECTS for figure in subject.figures]
    assert len(set(names)) == len(names)


def test_the_page_is_renewed(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{main.BEGIN}old\n{main.END}after\n")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "many.svg").write_text("<svg/>")
    for _ in range(2):
        main.renew_page("new\n", folder, page)
    assert page.read_text() == f"before\n{main.BEGIN}\nnew\n\n{main.END}after\n"
    assert (tmp_path / "performance-many.svg").read_text() == "<svg/>"


def test_a_server_is_there_until_the_end() -> None:
    with Server("memd") as server:
        assert server.start > 0
        assert server.resident() > 0
        other = server.second()
        assert other.execute("qom-get", {"path": "/objects", "property": "type"}) == "container"
        other.close()
        paths = server.paths
    assert not paths[0].parent.exists()


def test_what_is_not_measured_now_stays(tmp_path: Path) -> None:
    was, now = Samples(Figure("was", "", "")), Samples(Figure("now", "", ""), {"memd": [2.0]})
    main.fill_in(tmp_path, [was, now], {})
    assert not was.values
    (tmp_path / "results.json").write_text(
        '{"figures": {"was": {"samples": {"memd": [1.0]}}, "now": {"samples": {"memd": [9.0]}}},'
        ' "curves": {"many": {"memd": [[1.0, 2.0]]}}}'
    )
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    main.fill_in(tmp_path, [was, now], curves)
    assert (was.values, now.values) == ({"memd": [1.0]}, {"memd": [2.0]})
    assert curves == {"many": {"memd": [(1.0, 2.0)]}}


def test_what_there_is_without_a_server() -> None:
    assert bare.exchanges(b"x", b"y" * 70000, 3) > 0
    assert min(bare.carried(1 << 20), bare.copied(1 << 20)) > 0
    assert min(bare.mappings(1 << 20, 3), bare.memfds(1 << 20, 3)) > 0
    assert bare.together(4.0, 4.0) == 2.0
