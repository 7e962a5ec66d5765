"""Templates travel: from store to store through directories, file servers and registries."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.pages.blobs import Blobs
from memd.pages.manifest import Manifest
from memd.pages.postcopy import Missing
from memd.pages.remote import fetch_blob
from memd.pages.source_urls import open_source
from memd.pages.sources import SourceError
from memd.pages.store import Store
from memd.pages.template_memory import _AGAIN, TemplateMemory
from tests.pages.memory import PAGE, change, content_of, memory, ready, save, unpacked
from tests.pages.proxy import Proxy
from tests.pages.registry import Registry, log_in
from tests.pages.web import Web
from tests.tls import Certificates

pytest.importorskip("urllib3", reason="needs urllib3, which the extra templates brings")
from memd.pages.oci import Oci

DATA = memory(600)

MakeStore = Callable[..., Store]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeStore]:
    """Makes stores: make(name, *sources, cache_limit=None)."""
    stores = []

    def make(name: str, *sources: str, cache_limit: int | None = None) -> Store:
        store = Store(str(tmp_path / name), sources=sources, cache_limit=cache_limit)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "origin").mkdir()
    web = Web(tmp_path / "origin")
    yield web
    web.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.close()


def fill(store: Store, name: str = "a", data: bytes = DATA, base: str | None = None) -> Manifest:
    return save(store, name, data, base, devices=b"QEVM", machine="q35")


def content(store: Store, name: str) -> bytes:
    template = store.open(name)
    try:
        return template.read(0, template.size)
    finally:
        template.close()


def packs(store: Store) -> int:
    """Bytes of what is in the store, and not kept for now."""
    return sum(each.stat().st_size for each in Path(store.blobs.directory).iterdir())


def sent(url: str, make: MakeStore) -> None:
    """Push from one store and pull into another."""
    here, there = make("here", url), make("there", url)
    fill(here)
    manifest = here.set_working_set("a", random.Random(1).sample(range(600), 100))
    fill(here, "b", change(DATA, 0.03, seed=2), "a")
    steps: list[tuple[int, int]] = []
    assert here.push("a", progress=lambda *step: steps.append(step)) == url
    assert steps[-1][0] == steps[-1][1] > 0
    steps.clear()
    here.push("b", progress=lambda *step: steps.append(step))
    # What it shares with the other is there already.
    assert steps[-1][1] < packs(here) / 2
    with pytest.raises(QMPError, match=f"template 'none' is not at '{url}'"):
        there.pull("none")
    with pytest.raises(QMPError, match="'oci://elsewhere/x' is not one of the template sources"):
        there.pull("a", "oci://elsewhere/x")
    assert there.pull("a", url) == url
    assert there.manifest("a") == manifest
    assert there.names() == ["a"]
    there.pull("b")
    assert content(there, "a") == DATA
    assert content(there, "b") == change(DATA, 0.03, seed=2)
    assert there.open("a").devices() == b"QEVM"
    assert there.open("a").working_set() == here.open("a").working_set()
    assert there.verify("b").damaged == []
    assert there.usage("a").source == url
    assert there.usage("a").present == there.usage("a").stored
    there.pull("a")
    here.delete("a")
    there.delete("a")
    assert content(there, "b") == change(DATA, 0.03, seed=2)


def test_through_a_directory(make: MakeStore, tmp_path: Path) -> None:
    sent(f"file:{tmp_path}/shared", make)
    # It is a store itself.
    assert content(make("shared"), "a") == DATA


def test_pushed_as_soon_as_its_working_set_is_there(make: MakeStore, tmp_path: Path) -> None:
    """What became garbage of it is collected in the same moment."""
    store = make("here", f"file:{tmp_path}/shared")
    fill(store)
    for seed in range(5):
        before = store.manifest("a")
        pages = random.Random(seed).sample(range(600), 200)
        learning = threading.Thread(target=store.set_working_set, args=("a", pages))
        learning.start()
        while store.manifest("a") == before:
            pass
        learning.join(0.001 * seed)
        push_until_not_being_changed(store)
        learning.join()
    there = make("there", f"file:{tmp_path}/shared")
    there.pull("a")
    assert content(there, "a") == DATA
    assert there.manifest("a") == store.manifest("a")


def push_until_not_being_changed(store: Store) -> None:
    while True:
        try:
            store.push("a")
        except QMPError as error:
            if error.desc != "template 'a' is being changed":
                raise
        else:
            return


def test_through_a_registry(make: MakeStore, registry: Registry) -> None:
    sent(f"oci://{registry.host}/guests/templates", make)


def test_a_registry_that_wants_a_password(
    make: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path, user=("u", "secret"))
    try:
        url = f"oci://{registry.host}/t"
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        stranger = make("stranger", url)
        fill(stranger)
        with pytest.raises(QMPError, match=rf"template source '{url}': .*401 Unauthorized"):
            stranger.push("a")
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(log_in(tmp_path, registry.host, "u", "wrong")))
        with pytest.raises(QMPError, match="401"):
            make("wrong", url).pull("a")
        log_in(tmp_path, registry.host, "u", "secret")
        here = make("here", url)
        fill(here)
        here.push("a")
        there = make("there", url)
        there.locate("a")
        assert content(there, "a") == DATA
    finally:
        registry.close()


def test_chunks_come_when_they_are_asked_for(make: MakeStore, web: Web) -> None:
    origin = make("origin")
    fill(origin)
    order = random.Random(1).sample(range(600), 200)
    origin.set_working_set("a", order)
    there = make("there", web.url)
    there.locate("a")
    assert there.names() == ["a"]
    assert there.usage("a").present == 0
    template = there.open("a")
    hot = template.working_set().tolist()
    web.asked.clear()
    template.fetch(hot[0] * PAGE, PAGE)
    # One chunk, and none of the rest.
    assert len(web.asked) == 1
    assert unpacked(template, hot[0] * PAGE, PAGE) == DATA[hot[0] * PAGE :][:PAGE]
    web.asked.clear()
    for page in hot[:64]:
        template.fetch(page * PAGE, PAGE)
    # They were in the same one.
    assert web.asked == []
    first, length = template.data_ranges()[2]
    template.fetch(first, length)
    web.asked.clear()
    again = make("again", web.url)
    again.locate("a")
    web.asked.clear()
    whole = again.open("a")
    whole.fetch(0, whole.size)
    assert unpacked(whole, 0, whole.size) == DATA
    # Chunks that follow each other are asked for together.
    assert len(web.asked) < 10
    whole.close()
    template.close()
    # What came is kept.
    there.close()
    web.asked.clear()
    kept = Store(there.directory, readonly=True).open("a")
    assert kept.read(first, length) == DATA[first : first + length]
    assert web.asked == []
    kept.close()


def test_fetched_chunks_are_kept_within_the_limit(make: MakeStore, web: Web) -> None:
    data = DATA[: 200 * PAGE]
    fill(make("origin"), "a", data)
    limit = 100_000
    store = make("there", web.url, cache_limit=limit)
    store.locate("a")
    template = store.open("a")
    cache = Path(store.cache.directory)
    for offset, length in template.data_ranges():
        assert template.read(offset, length) == data[offset : offset + length]
        records = [each for each in cache.iterdir() if len(each.name) == 64]
        assert sum(each.stat().st_size for each in records) == store.cache.taken() <= limit
    assert store.cache.taken() > limit / 2
    counts = store.counts.read()
    assert counts["fetched"] > 10
    assert counts["fetched-bytes"] > limit
    assert (counts["stored"], counts["damaged"]) == (0, 0)
    # Another reader of the store keeps to it.
    assert Store(store.directory, readonly=True).cache.limit == limit
    template.fetch(0, template.size)
    assert unpacked(template, 0, template.size) == data
    assert store.cache.taken() <= limit
    template.close()
    store.delete("a")
    assert store.cache.taken() == 0
    nothing = make("nothing", web.url, cache_limit=0)
    nothing.locate("a")
    assert content(nothing, "a") == data
    assert nothing.cache.taken() == 0


def test_a_bad_chunk_is_fetched_anew(
    make: MakeStore, web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    fill(make("origin"))
    store = make("there", web.url)
    store.pull("a")
    pack, offset, length = store.places_of(store.entry("a").version)[3]
    path = Path(store.blobs.path(pack))
    broken = bytearray(path.read_bytes())
    broken[offset + length // 2] ^= 1
    path.write_bytes(broken)
    assert content(store, "a") == DATA
    assert "is damaged" in caplog.text
    verified = store.verify("a")
    assert (verified.damaged, verified.repaired) == ([], 1)
    assert store.counts.read()["damaged"] == 1
    web.asked.clear()
    assert content(store, "a") == DATA
    assert web.asked == []
    # One that was kept is no better than another.
    other = make("other", web.url)
    other.locate("a")
    content(other, "a")
    record = next(each for each in Path(other.cache.directory).iterdir() if len(each.name) == 64)
    record.write_bytes(b"z" + record.read_bytes()[:-1])
    assert content(other, "a") == DATA


def test_a_source_that_lies(make: MakeStore, web: Web) -> None:
    fill(make("origin"))
    store = make("there", web.url)
    store.locate("a")
    template = store.open("a")
    web.corrupt = True
    with pytest.raises(QMPError, match=f"is damaged, at '{web.url}' too"):
        template.fetch(0, 64 * PAGE)
    with pytest.raises(QMPError, match=r"blob [0-9a-f]{64} is damaged"):
        make("other", web.url).pull("a")
    web.corrupt = False
    template.fetch(0, 64 * PAGE)
    assert unpacked(template, 0, 64 * PAGE) == DATA[: 64 * PAGE]
    template.close()
    with pytest.raises(QMPError, match="not found"):
        make("other2", web.url).locate("b")


def test_a_source_that_fails_for_a_while(make: MakeStore, web: Web) -> None:
    fill(make("origin"))
    store = make("there", web.url)
    web.fail = 2
    store.locate("a")
    web.fail = 2
    assert content(store, "a") == DATA


def test_a_source_that_stalls_holds_up_nothing_else(make: MakeStore, web: Web) -> None:
    origin = make("origin")
    fill(origin)
    store = make("there", web.url)
    fill(store, "mine", change(DATA, 1, seed=8))
    store.locate("a")
    template = store.open("a")
    web.stall = "/blobs/"
    first = template.data_ranges()[0][0]
    waiting = threading.Thread(target=template.fetch, args=(first, PAGE))
    waiting.start()
    # Others go on, in this template and in others.
    assert not ready(template, first, PAGE)
    assert content(store, "mine") == change(DATA, 1, seed=8)
    store.verify("mine")
    fill(store, "more", change(DATA, 0.01, seed=4))
    store.delete("more")
    assert waiting.is_alive()
    web.go_on.set()
    waiting.join()
    assert unpacked(template, first, PAGE) == DATA[first : first + PAGE]
    template.close()


@pytest.mark.parametrize(
    "trickle", [pytest.param((1, 0.01), id="headers"), pytest.param((512, 0.3), id="chunk")]
)
def test_a_source_that_trickles(make: MakeStore, web: Web, trickle: tuple[int, float]) -> None:
    """A byte now and then is not an answer; one that is slow and steady is."""
    from memd.pages.http import Http

    store = make("origin")
    fill(store)
    source = Http(web.url, patience=0.5)
    pack = max(store.blobs.digests(), key=store.blobs.size)
    web.trickle = trickle
    # Under load it may be silent for so long.
    with pytest.raises(SourceError, match=r"it sends less than 4 KiB a second|it does not answer"):
        source.part(pack, 0, 100_000)
    web.trickle = (512, 0.01)
    assert len(source.part(pack, 0, 40_000)) == 40_000


@pytest.fixture
def link(registry: Registry) -> Iterator[Proxy]:
    """A link to the registry."""
    proxy = Proxy(registry.port)
    yield proxy
    proxy.close()


async def test_a_registry_that_trickles(
    make: MakeStore, registry: Registry, link: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds up what needs it and nothing else, is given up, and tried again."""
    here = make("here", f"oci://{registry.host}/slow")
    fill(here)
    here.push("a")
    url = f"oci://127.0.0.1:{link.port}/slow"
    monkeypatch.setattr(
        "memd.pages.store.open_source",
        lambda url: Oci(url, "127.0.0.1", link.port, "slow", patience=0.5),
    )
    store = make("there", url)
    fill(store, "mine", change(DATA, 1, seed=8))
    store.locate("a")
    template = store.open("a")
    ranges = template.data_ranges()
    first, last = ranges[0][0] // PAGE, ranges[-1][0] // PAGE
    template.fetch(first * PAGE, PAGE)
    link.pause = 0.02
    memory = TemplateMemory(template)
    woken = asyncio.Event()
    memory.on_ready.add(woken.set)
    began = time.monotonic()
    assert memory.records(last, 1, True) is None
    # What is here is had, of this template and of others.
    assert memory.records(first, 1, True) is not None
    assert await asyncio.to_thread(content, store, "mine") == change(DATA, 1, seed=8)
    await asyncio.wait_for(woken.wait(), 60)
    assert time.monotonic() - began > 1
    with pytest.raises(Missing):
        memory.records(last, 1, True)
    link.pause = 0.0
    # It is tried again when some time has passed.
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + _AGAIN)
    deadline = time.monotonic() + 30
    found = None
    while found is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
        with contextlib.suppress(Missing):
            found = memory.records(last, 1, True)
    assert content_of(found) == DATA[last * PAGE : last * PAGE + PAGE]
    await memory.close()


def test_a_handshake_that_trickles(
    make: MakeStore, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A byte now and then does not put off the end of waiting for it."""
    fill(make("origin"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.place / "server.pem", certificates.place / "server.key")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.place / "ca.pem"))
    web = Web(tmp_path / "origin", context)
    proxy = Proxy(web.port)
    try:
        store = make("there", f"https://127.0.0.1:{proxy.port}")
        proxy.pause = 0.05
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"timed out|it does not answer in time"):
            store.pull("a")
        assert 3 < time.monotonic() - began < 30
        proxy.pause = 0.0
        store.pull("a")
        assert content(store, "a") == DATA
    finally:
        proxy.close()
        web.close()


def test_a_source_that_does_not_end(make: MakeStore, web: Web) -> None:
    """No more is taken of it than there can be."""
    store = make("origin")
    fill(store)
    web.more = bytes(2 << 20)
    name = "what it says of 'a' has more than 1048576 bytes"
    with pytest.raises(SourceError, match=name):
        make("there", web.url).pull("a")
    source = open_source(web.url)
    pack = max(store.blobs.digests(), key=store.blobs.size)
    there = Blobs(store.blobs.directory)
    with pytest.raises(SourceError, match=rf"blob {pack} has more than 1000 bytes"):
        fetch_blob(source, there, pack, 1000, anew=True)
    assert not [each for each in os.listdir(there.directory) if each.startswith("new.")]
    # Nor is it let to grow after it has come.
    web.more, web.encoding = b"", "gzip"
    make("other", web.url).pull("a")


async def test_what_is_here_does_not_wait_for_what_stalls(make: MakeStore, web: Web) -> None:
    """Machines are sent the pages that are here while others of the same template are awaited."""
    origin = make("origin")
    fill(origin)
    # What the store has of it: all but the changed pages.
    fill(origin, "b", change(DATA, 0.1, seed=2), "a")
    store = make("there", web.url)
    store.pull("a")
    store.locate("b")
    web.stall = "/blobs/"
    memory = TemplateMemory(store.open("b"))
    other = change(DATA, 0.1, seed=2)
    pages = [slice(at, at + PAGE) for at in range(0, len(DATA), PAGE)]
    far = [page for page, at in enumerate(pages) if other[at] != DATA[at]]
    near = next(page for page, at in enumerate(pages) if other[at] == DATA[at] and any(DATA[at]))
    woken = asyncio.Event()
    memory.on_ready.add(woken.set)
    for page in far[:20]:
        assert memory.records(page, 1, True) is None
    while (found := memory.records(near, 1, True)) is None:
        await asyncio.wait_for(woken.wait(), 10)
        woken.clear()
    assert content_of(found) == DATA[near * PAGE : near * PAGE + PAGE]
    assert memory.records(far[0], 1, True) is None
    web.go_on.set()
    await memory.close()


def test_several_want_it_at_once(make: MakeStore, web: Web) -> None:
    fill(make("origin"))
    store = make("there", web.url)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _each: store.locate("a"), range(8)))
        templates = list(threads.map(lambda _each: store.open("a"), range(8)))
        list(threads.map(lambda each: each.fetch(0, each.size), templates))
    for template in templates:
        assert unpacked(template, 0, template.size) == DATA
        template.close()
    with pytest.raises(QMPError, match="is not a name of a template"):
        store.locate("../names/a")


def test_a_file_server_that_is_none(make: MakeStore, web: Web, tmp_path: Path) -> None:
    fill(make("origin"))
    web.ranges = False
    store = make("there", web.url)
    store.locate("a")
    with pytest.raises(SourceError, match="it does not serve ranges"):
        store.open("a").read(0, 300 * PAGE)
    with pytest.raises(QMPError, match="can only be read from"):
        store.push("a")
    open_source(web.url).check()
    with pytest.raises(SourceError, match="serves no template store: 404"):
        open_source(f"{web.url}/nothing").check()
    web.close()
    closed = f"template source '{web.url}': Connection refused"
    with pytest.raises(SourceError, match=closed):
        open_source(web.url).check()
    with pytest.raises(SourceError, match=r"oci://127.0.0.1:1/x': Connection refused"):
        open_source("oci://127.0.0.1:1/x").check()
    with pytest.raises(SourceError, match="No such file or directory"):
        open_source(f"file:{tmp_path}/none").check()


def test_a_source_that_wants_a_password(
    make: MakeStore, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(make("origin"))
    host = f"127.0.0.1:{web.port}"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(log_in(tmp_path, host, "u", "secret")))
    web.login = "Basic dTpzZWNyZXQ="
    store = make("there", web.url)
    store.locate("a")
    assert content(store, "a") == DATA
    # As registries do it: a token, for what was asked for, from another place.
    web.login = "Bearer t"
    web.asked.clear()
    other = make("other", web.url)
    other.pull("a")
    assert content(other, "a") == DATA
    tokens = [path for path, _range in web.asked if path.startswith("/token")]
    assert tokens == ["/token?service=s&scope=r%3Ax%3Apull"]
    # A token that is no good any more is asked for anew.
    web.login = "Bearer other"
    with pytest.raises(SourceError, match="401"):
        make("third", web.url).pull("a")


def test_a_login_by_another_thread(
    make: MakeStore, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused before it is asked for again after it."""
    fill(make("origin"))
    host = f"127.0.0.1:{web.port}"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(log_in(tmp_path, host, "u", "secret")))
    web.login, web.stall = "Basic dTpzZWNyZXQ=", "/names/"
    source = open_source(web.url)
    with ThreadPoolExecutor(1) as other:
        found = other.submit(source.find, "a")
        while not web.asked:
            time.sleep(0.01)
        source.check()
        web.go_on.set()
        assert found.result() is not None


def test_blobs_at_another_server(
    make: MakeStore, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(make("origin"))
    host = f"127.0.0.1:{web.port}"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(log_in(tmp_path, host, "u", "secret")))
    web.login = "Bearer t"
    elsewhere = Web(tmp_path / "origin")
    try:
        web.redirect = elsewhere.url
        store = make("there", web.url)
        store.pull("a")
        assert content(store, "a") == DATA
        # It gets no password, and no token.
        elsewhere.login = "Bearer t"
        elsewhere.asked.clear()
        with pytest.raises(SourceError, match="401"):
            make("other", web.url).pull("a")
        assert not [path for path, _range in elsewhere.asked if path.startswith("/token")]
    finally:
        elsewhere.close()


@pytest.mark.parametrize("challenge", ["Bearer", 'Bearer realm="http://["', 'Digest realm="x"'])
def test_a_challenge_that_makes_no_sense(web: Web, challenge: str) -> None:
    web.login, web.challenge = "Bearer t", challenge
    with pytest.raises(SourceError, match="401 Unauthorized"):
        open_source(web.url).find("a")


def test_connections_that_end_early(make: MakeStore, web: Web) -> None:
    fill(make("origin"))
    store = make("there", web.url)
    store.locate("a")
    web.cut = 1000
    with pytest.raises(QMPError, match="a chunk is cut short"):
        content(store, "a")
    other = make("other", web.url)
    with pytest.raises(QMPError, match=f"'{web.url}': it breaks an answer off"):
        other.pull("a")
    # A blob is taken up where it ended.
    web.cut = 2
    other.pull("a")
    assert content(other, "a") == DATA
    web.ranges, web.cut = False, 1
    with pytest.raises(QMPError, match=f"'{web.url}': it does not serve ranges"):
        make("third", web.url).pull("a")
    web.ranges, web.cut = True, 0
    assert content(store, "a") == DATA


def test_tls(
    make: MakeStore, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fill(make("origin"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.place / "server.pem", certificates.place / "server.key")
    web = Web(tmp_path / "origin", context)
    try:
        with pytest.raises(SourceError, match="certificate verify failed"):
            open_source(web.url).check()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.place / "ca.pem"))
        store = make("there", web.url)
        store.pull("a")
        assert content(store, "a") == DATA
    finally:
        web.close()


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ftp://h/x", "oci://h", "oci:///x", "oci://h/UP", "http://", "file:rel"),
        *("file://host/x", "https://u:p@h/x", "http://h/x?y", "oci://h:99999/x", "oci://h/a//b"),
    ],
)
def test_urls_that_are_no_source(url: str, tmp_path: Path) -> None:
    with pytest.raises(QMPError, match="is not a template source"):
        Store(str(tmp_path / "s"), sources=[url])


def test_an_image_of_something_else(make: MakeStore, web: Web, tmp_path: Path) -> None:
    store = make("there", web.url)
    names = tmp_path / "origin" / "names"
    names.mkdir()
    for text in (
        "",
        "[]",
        '{"versions": []}',
        '{"versions": [{"manifest": "../x", "places": "y"}]}',
    ):
        (names / "a").write_text(text)
        with pytest.raises(SourceError, match="what it says of 'a' can't be read"):
            store.pull("a")
    assert store.names() == []


def test_one_that_was_saved_here_is_not_replaced(make: MakeStore, tmp_path: Path) -> None:
    url = f"file:{tmp_path}/shared"
    here, there = make("here", url), make("there", url)
    fill(here)
    here.push("a")
    fill(there, "a", change(DATA, 0.1, seed=3))
    with pytest.raises(QMPError, match="template 'a' exists already, and is another one"):
        there.pull("a")
    there.delete("a")
    there.pull("a")
    # A newer one of the same name follows the older, under who uses it.
    used = there.open("a")
    used.fetch(0, PAGE)
    here.delete("a")
    fill(here, "a", change(DATA, 0.1, seed=3))
    here.push("a")
    there.pull("a")
    assert content(there, "a") == change(DATA, 0.1, seed=3)
    assert used.read(0, used.size) == DATA
    used.close()
