"""Templates are stored once, whole or not at all, and read as they were written."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.pages.blobs import Blobs, Damaged
from memd.pages.manifest import TemplateBlock
from memd.pages.store import Store
from memd.pages.template import Template
from tests.pages.memory import PAGE, change, memory, ready, save, unpacked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(str(tmp_path / "store"))
    yield store
    store.close()


def taken(store: Store) -> int:
    """Bytes on disk, without what is unpacked."""
    place = Path(store.directory, "blobs")
    return sum(each.stat().st_size for each in place.iterdir())


def content(store: Store, name: str) -> bytes:
    with store.reading(name) as template:
        return template.read(0, template.size)


def test_what_is_read_is_what_was_written(store: Store) -> None:
    data = memory(1000)
    manifest = save(store, "a", data)
    template = store.open("a")
    assert template.manifest == manifest == store.manifest("a")
    assert template.read(0, len(data)) == data
    chance = random.Random(3)
    for _try in range(200):
        offset = chance.randrange(len(data))
        length = chance.randrange(min(200_000, len(data) - offset))
        assert template.read(offset, length) == data[offset : offset + length]
    template.close()


def test_pages_of_zeroes_are_none(store: Store) -> None:
    data = memory(300)
    manifest = save(store, "a", data)
    template = store.open("a")
    zero = [not any(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
    assert [not page for page in template.layout.content()] == zero
    ranges = template.data_ranges()
    told = [True] * len(zero)
    for offset, length in ranges:
        told[offset // PAGE : (offset + length) // PAGE] = [False] * (length // PAGE)
    assert told == zero
    assert all(end < start for (end, _), (start, _) in pairwise(ranges))
    assert manifest.data == sum(length for _offset, length in ranges)
    save(store, "nothing", bytes(1 << 20))
    assert store.open("nothing").data_ranges() == []
    assert content(store, "nothing") == bytes(1 << 20)


def test_equal_chunks_are_stored_once(store: Store) -> None:
    data = memory(512, zero=0)
    save(store, "a", data)
    once = taken(store)
    save(store, "b", data + data)
    assert taken(store) < once * 1.1
    assert content(store, "b") == data + data
    usage = store.usage("b")
    assert usage.shared == usage.stored > 0
    assert usage.chunks == 32


def test_ten_alike_take_less_than_twice_one(store: Store) -> None:
    data = memory(2048, zero=0.2)
    save(store, "base", data)
    once = taken(store)
    for number in range(9):
        save(store, f"child{number}", change(data, 0.05, seed=number), "base")
    assert taken(store) < 1.7 * once
    for number in range(9):
        assert content(store, f"child{number}") == change(data, 0.05, seed=number)
    # A child needs no base to be there.
    store.delete("base")
    assert content(store, "child3") == change(data, 0.05, seed=3)
    assert store.verify("child4").damaged == []


def test_a_base_of_another_size(store: Store) -> None:
    data = memory(200)
    save(store, "base", data)
    for pages in (7, 100, 199, 333):
        other = change(memory(400), 0.02, seed=pages)[: pages * PAGE]
        save(store, f"c{pages}", other, "base")
        assert content(store, f"c{pages}") == other


def test_a_sparse_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        for at in (0, 12345 * 4, 33 << 20, (64 << 20) - 5):
            file.seek(at)
            file.write(b"hello")
    seen: list[int] = []
    fd = os.open(path, os.O_RDONLY)
    try:
        store.begin("a").store(fd, 64 << 20, seen.append)
        store.begin("odd").store(fd, 12345 * 4 + 5)
        with pytest.raises(QMPError, match="truncated"):
            store.begin("cut").store(fd, 128 << 20)
        for size in (0, 1 << 44):
            with pytest.raises(QMPError, match=f"{size} bytes are not 1 to 4294967295 pages"):
                store.begin("none").store(fd, size)
    finally:
        os.close(fd)
    assert content(store, "a") == path.read_bytes()
    odd = content(store, "odd")
    assert odd == path.read_bytes()[: 12345 * 4 + 5] + bytes(-(12345 * 4 + 5) % PAGE)
    assert seen == sorted(seen)
    assert store.names() == ["a", "odd"]


def test_devices_and_what_is_said_of_the_machine(store: Store) -> None:
    blocks = [TemplateBlock("ram", 1 << 20, 4096, 0), TemplateBlock("vga.vram", 1 << 24, 4096)]
    save(
        *(store, "a", memory(256)),
        devices=b"QEVM...",
        machine="pc-q35-10.0",
        qemu_version="10.0.2",
        page_size=2 << 20,
        blocks=tuple(blocks),
    )
    template = store.open("a")
    assert template.devices() == b"QEVM..."
    manifest = template.manifest
    assert (manifest.machine, manifest.qemu_version) == ("pc-q35-10.0", "10.0.2")
    assert manifest.blocks == tuple(blocks)
    assert manifest.page_size == 2 << 20
    assert store.open("a").working_set().tolist() == []


def test_what_is_unpacked_is_shared_and_ready(store: Store) -> None:
    data = memory(500)
    save(store, "a", data)
    one, other = store.open("a"), Store(store.directory, readonly=True).open("a")
    first, length = one.data_ranges()[0]
    assert not ready(one, first, length)
    one.fetch(first, length)
    assert ready(other, first, length)
    assert unpacked(other, first, length) == data[first : first + length]
    other.fetch(0, other.size)
    assert unpacked(one, 0, one.size) == data
    # Zeroes are ready from the beginning.
    save(store, "zeroes", bytes(10 * PAGE) + b"x" * PAGE)
    zeroes = store.open("zeroes")
    assert ready(zeroes, 0, 10 * PAGE)
    assert not ready(zeroes, 0, 11 * PAGE)
    with pytest.raises(QMPError, match="template 'a' is in use"):
        store.delete("a")
    one.close()
    other.close()
    zeroes.close()
    store.delete("a")
    assert store.names() == ["zeroes"]
    assert not [each for each in Path(store.unpacked).rglob("*") if each.stat().st_size > len(data)]


def test_unpacked_pages_have_their_address_in_their_block(store: Store) -> None:
    """Also where the same memory is of other blocks in another template."""
    data = memory(64, zero=0)
    for name, lengths in (("one", [64]), ("two", [16, 48])):
        starts = [sum(lengths[:number]) * PAGE for number in range(len(lengths))]
        blocks = [
            TemplateBlock(f"m{start}", length * PAGE, PAGE, start)
            for start, length in zip(starts, lengths, strict=True)
        ]
        save(store, name, data, blocks=(*blocks, TemplateBlock("rom", PAGE, PAGE)))
    for name, address in (("one", 20 * PAGE), ("two", 4 * PAGE)):
        template = store.open(name)
        template.fetch(0, template.size)
        record = template.copy.records(20, 1)
        head = bytes(record.view[record.start : record.start + 8])
        assert int.from_bytes(head, "big") == address | 0x28
        assert unpacked(template, 20 * PAGE, PAGE) == data[20 * PAGE : 21 * PAGE]
        template.close()


def test_the_working_set_is_stored_in_its_order(store: Store) -> None:
    data = memory(2000)
    save(store, "a", data)
    digest = store.manifest("a").digest
    used = store.open("a")
    used.fetch(0, used.size)
    order = random.Random(7).sample(range(2000), 300)
    manifest = store.set_working_set("a", [*order, 5000, order[0]])
    assert manifest.digest != digest
    template = store.open("a")
    hot = [page for page in order if any(data[page * PAGE : (page + 1) * PAGE])]
    assert template.working_set().tolist() == hot
    assert template.read(0, template.size) == data
    # The pages follow each other in chunks that have no others.
    pieces = [next(template.layout.pieces(page, 1)) for page in hot]
    assert [(each.chunk, each.slot) for each in pieces] == [
        divmod(number, 64) for number in range(len(hot))
    ]
    # What was unpacked stays so, and who uses it goes on.
    assert ready(template, 0, template.size)
    assert used.read(0, used.size) == data
    used.close()
    template.close()
    store.collect_garbage()
    assert content(store, "a") == data
    again = store.set_working_set("a", order[:10])
    assert store.open("a").manifest == again
    assert content(store, "a") == data


def test_deleting_gives_the_room_back(store: Store) -> None:
    one, other = memory(1000, seed=1), memory(1000, seed=2)
    save(store, "a", one)
    alone = taken(store)
    save(store, "b", one[: 500 * PAGE] + other[500 * PAGE :])
    save(store, "c", other)
    store.delete("c")
    store.delete("b")
    assert taken(store) <= alone * 1.01
    save(store, "d", one[: 200 * PAGE])
    reader = store.open("d")
    store.delete("a")
    assert taken(store) < alone / 2
    # One that was open follows the chunks to where they are now.
    assert reader.read(0, reader.size) == one[: 200 * PAGE]
    store.delete("d")
    assert taken(store) == 0
    with pytest.raises(QMPError, match="template 'd' not found"):
        store.delete("d")


@pytest.mark.parametrize(
    "change", [Store.delete, lambda store, name: store.set_working_set(name, [9])]
)
def test_one_that_is_read_while_it_changes(
    store: Store, change: Callable[[Store, str], object]
) -> None:
    data = memory(100, zero=0)
    save(store, "a", data)
    with store.reading("a") as template:
        change(store, "a")
        assert template.read(0, template.size) == data
        kept = taken(store)
    assert taken(store) < kept


def test_chunks_that_another_thread_has_found_again(store: Store) -> None:
    data = memory(400, zero=0)
    save(store, "a", data)
    save(store, "b", data[: 100 * PAGE])
    found = threading.Event()

    class Late(Blobs):
        """A thread finds a chunk moved away, and looks where it is after the other one has."""

        def read_at(self, digest: str, offset: int, length: int) -> bytes:
            try:
                return super().read_at(digest, offset, length)
            except FileNotFoundError:
                if threading.current_thread() is late:
                    assert found.wait(60)
                raise

    opened = store.open("b")
    reader = Template(
        "b",
        opened.manifest,
        opened.layout,
        Late(store.blobs.directory),
        lambda known: store._places_of("b", opened.manifest.layout.digest, known),
        store.unpacked,
        store.counts,
    )
    store.delete("a")
    read: list[bytes] = []
    late = threading.Thread(target=lambda: read.append(reader.read(0, PAGE)))
    late.start()
    assert reader.read(50 * PAGE, PAGE) == data[50 * PAGE : 51 * PAGE]
    found.set()
    late.join()
    assert read == [data[:PAGE]]


def test_one_that_is_deleted_while_all_are_gone_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Before(Store):
        """Names are told as they were before a deletion."""

        def names(self) -> list[str]:
            return ["deleted", *super().names()]

    store = Before(str(tmp_path / "store"))
    data = memory(20)
    save(store, "a", data)
    save(store, "b", data)
    assert store.usage("a").shared == store.usage("a").stored > 0
    assert [each.name for each in store.all_usage()] == ["a", "b"]
    store.set_working_set("a", [0])
    assert caplog.text == ""
    store.close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/etc/passwd", "-a", "a b", "ä", "x" * 129, "a\n"]
)
def test_names_that_are_none(store: Store, name: str) -> None:
    for act in (store.begin, store.open, store.delete, store.verify):
        with pytest.raises(QMPError, match="is not a name of a template"):
            act(name)


def test_a_name_is_taken_from_the_beginning(store: Store) -> None:
    writer = store.begin("a")
    with pytest.raises(QMPError, match="template 'a' exists already"):
        store.begin("a")
    writer.close()
    save(store, "a", memory(10))
    with pytest.raises(QMPError, match="template 'a' exists already"):
        store.begin("a")
    with pytest.raises(QMPError, match="template 'none' not found"):
        store.begin("b", "none")
    save(store, "b", memory(10))
    assert store.names() == ["a", "b"]


def test_who_may_use_a_directory(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "below" / "store"))
    assert os.stat(store.directory).st_mode & 0o777 == 0o700
    with pytest.raises(QMPError, match=f"another memd uses it .process {os.getpid()}."):
        Store(store.directory)
    Store(store.directory, readonly=True)
    store.close()
    Store(store.directory).close()
    os.chmod(store.directory, 0o770)
    with pytest.raises(QMPError, match="other users may write to it"):
        Store(store.directory)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "precious").write_text("x")
    for readonly in (False, True):
        with pytest.raises(QMPError, match="not empty, and not a template store"):
            Store(str(strange), readonly=readonly)
    assert os.listdir(strange) == ["precious"]
    with pytest.raises(QMPError, match=r"cannot use .*: (File exists|it is not a directory)"):
        Store(str(strange / "precious"))
    assert not (tmp_path / "none").exists()


def test_a_store_of_another_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not here: root")
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 12345, 12345)
    with pytest.raises(QMPError, match=r"it belongs to another user \(uid 12345\)"):
        Store(str(theirs))
    assert os.listdir(theirs) == []


@pytest.mark.parametrize("chunk", [0, 7, 24])
def test_no_wrong_byte_is_given(store: Store, chunk: int, caplog: pytest.LogCaptureFixture) -> None:
    data = memory(400, zero=0)
    save(store, "a", data)
    pack, offset, length = store.places_of(store.entry("a").version)[chunk]
    path = Path(store.blobs.path(pack))
    before = path.read_bytes()
    broken = bytearray(before)
    broken[offset + length // 2] ^= 0x10
    path.write_bytes(broken)
    template = store.open("a")
    with pytest.raises(Damaged, match=r"template 'a': chunk [0-9a-f]{64} is damaged or missing"):
        template.read(chunk * 16 * PAGE, PAGE)
    with pytest.raises(Damaged):
        template.fetch(0, template.size)
    assert "is damaged" in caplog.text
    assert not ready(template, chunk * 16 * PAGE, PAGE)
    # The rest is as good as before.
    assert template.read(PAGE * 160, 5 * PAGE) == data[PAGE * 160 :][: 5 * PAGE]
    assert store.verify("a").damaged == [template.layout.digest(chunk).hex()]
    path.write_bytes(before)
    template.fetch(0, template.size)
    assert unpacked(template, 0, template.size) == data
    template.close()
    assert store.verify("a").damaged == []


def test_a_damaged_manifest_takes_nothing_else_along(store: Store) -> None:
    save(store, "a", memory(100, seed=1))
    save(store, "b", memory(100, seed=2))
    save(store, "c", memory(100, seed=3))
    version = store.entry("a").version
    path = Path(store.blobs.path(version.manifest))
    path.write_bytes(path.read_bytes().replace(b"4096", b"8192"))
    with pytest.raises(Damaged, match="damaged"):
        store.open("a")
    # Nothing is collected while it is not known what belongs to it.
    before = taken(store)
    store.delete("c")
    assert taken(store) == before
    assert content(store, "b") == memory(100, seed=2)
    store.delete("a")
    assert content(store, "b") == memory(100, seed=2)
    assert taken(store) < before / 2


def test_read_while_it_changes(store: Store, tmp_path: Path) -> None:
    """Listing, opening, verifying and pushing see it before a change or after it."""
    data = memory(64)
    save(store, "a", data)
    store.close()
    busy = Store(store.directory, sources=[f"file:{tmp_path}/shared"])
    ended = threading.Event()
    errors: list[BaseException] = []

    def change_it() -> None:
        for turn in range(25):
            try:
                busy.set_working_set("a", range(turn, turn + 10))
                save(busy, "b", data[: (turn + 1) * PAGE], "a")
                busy.delete("b")
            except QMPError as error:
                # One change of a template at a time.
                if "is being changed" not in error.desc:
                    errors.append(error)
        ended.set()

    def read_it(act: Callable[[], object]) -> None:
        while not ended.is_set():
            try:
                act()
            except QMPError as error:
                if "is being changed" not in error.desc:
                    errors.append(error)
                    return

    def verify() -> None:
        assert busy.verify("a").damaged == []

    acts = [lambda: content(busy, "a"), lambda: busy.usage("a"), lambda: busy.push("a"), verify]
    threads = [threading.Thread(target=change_it)]
    threads += [threading.Thread(target=read_it, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert content(busy, "a") == data
    busy.close()
