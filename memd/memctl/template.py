"""`memctl template`: the first half of VM templating, a file that clones map copy-on-write.

A template is made as docs/templating.md says: through a shared, writable mapping
of a file, or from a backend that is there, whose content is saved. It is whole
before it is looked at, looked at before it is called a template, and nobody may
write to it afterwards.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from memd.memctl.add import make
from memd.memctl.backends import PREFIX, stat
from memd.memctl.context import OK, USAGE, Trouble
from memd.memctl.progress import Bar
from memd.memctl.read import CHUNK
from memd.memctl.save import save
from memd.memctl.sizes import exact, size
from memd.memctl.write import length_of, opened

if TYPE_CHECKING:
    import argparse

    from memd.client import Client, Export
    from memd.memctl.context import Context

JSON = Any

_PAGE = 4096

_BLOCK = 64 << 10
"""Bytes that are left out where they are all zeroes, as those of a new file are."""

_ZEROES = bytes(_BLOCK)


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="the template; nothing may be there yet")
    content = parser.add_mutually_exclusive_group(required=True)
    content.add_argument(
        "--of", metavar="ID", help="with the present content of this backend, as of a stopped VM"
    )
    content.add_argument(
        "--size", metavar="SIZE", type=size, help="of this size: zeroes, or what --from has"
    )
    parser.add_argument(
        "--from",
        dest="image",
        metavar="IMAGE",
        help="with --size: the content, a file or - for standard input; zeroes follow it",
    )
    parser.epilog = (
        "FILE is made by the daemon, on this host. Afterwards it is checked and made read-only,"
        " and the lines with which QEMU and memd make clones of it are printed. If anything goes"
        " wrong, nothing of it stays."
    )


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Make it."""
    if arguments.of and arguments.image:
        raise Trouble("--from goes with --size: with --of, the backend has the content", USAGE)
    wanted: int = arguments.size or 0
    if not arguments.of and (wanted % _PAGE or not wanted):
        raise Trouble(f"a template is of whole pages of {_PAGE} bytes", USAGE)
    path = os.path.abspath(arguments.file)
    if os.path.lexists(path):
        raise Trouble(
            f"{path} is there already",
            hint="A template that clones map must not change: choose another name, or remove it.",
        )
    with context.connect() as client:
        try:
            digest = None
            if arguments.of:
                backend = stat(client, arguments.of)
                page = backend["page-size"]
                length: int = -(-backend["size"] // page) * page
                save(client, arguments.of, path)
            else:
                length = wanted
                digest = _fill(context, client, path, length, arguments.image)
            mode = _seal(path, length, digest)
            _check_clones(client, path, length)
        except BaseException:
            _remove(path)
            raise
    told = {"filename": path, "size": length, "mode": f"{mode:04o}", **_lines(path, length)}
    if context.as_json:
        context.print_json(told)
        return OK
    context.print_lines(
        [
            f"{path}: a template of {exact(length)}, mode {mode:04o}.",
            "Clones in QEMU:",
            f"  qemu-system-x86_64 {told['qemu']} ...",
            "Clones in memd:",
            f"  memctl add {told['memd']}",
        ]
    )
    return OK


def _fill(
    context: Context, client: Client, path: str, length: int, image: str | None
) -> bytes | None:
    """Make the file through a shared mapping; the digest of what was written, if anything."""
    if image is None:
        with _shared(context, client, path, length):
            return None
    with opened(image) as source:
        wanted = length_of(source)
        if wanted is not None and wanted > length:
            raise Trouble(f"{image} has {wanted} bytes, and the template is to have {length}")
        with _shared(context, client, path, length) as id, client.export(id) as memory:
            return _copy(_way(client, id, memory), id, source, length, wanted)


def _way(client: Client, id: str, memory: Export) -> Callable[[int, bytes], None]:
    """How bytes get into a backend: through its descriptor, or through the daemon.

    The former takes a second for a GiB, the latter ten, for base64 and JSON
    (measured). Over TCP there is no descriptor, and files of hugetlbfs are not
    written to.
    """

    def through_daemon(at: int, data: bytes) -> None:
        client.write(id, at, data)

    def through_file(at: int, data: bytes) -> None:
        with memoryview(data) as left:
            done = 0
            while done < len(data):
                try:
                    done += os.pwrite(memory.fd, left[done:], memory.offset + at + done)
                except OSError as failed:
                    raise Trouble(f"cannot write the template: {failed.strerror}") from None

    return through_file if memory.fd >= 0 and memory.page_size == _PAGE else through_daemon


class _shared:
    """A backend on the file for the length of a `with` block; gives its id."""

    __slots__ = ("_client", "_id")

    def __init__(self, context: Context, client: Client, path: str, length: int) -> None:
        self._client = client
        self._id = f"memctl-template-{os.getpid()}"
        options = {
            "qom-type": f"{PREFIX}file",
            "id": self._id,
            "mem-path": path,
            "size": length,
            "share": True,
        }
        make(context, client, options)

    def __enter__(self) -> str:
        return self._id

    def __exit__(self, *_error: object) -> None:
        self._client.execute("object-del", {"id": self._id})


def _copy(
    put: Callable[[int, bytes], None], id: str, source: IO[bytes], length: int, wanted: int | None
) -> bytes:
    from hashlib import sha256

    digest = sha256()
    done = 0
    with Bar(id, "filling") as bar:
        while data := source.read(CHUNK):
            if done + len(data) > length:
                raise Trouble(f"there is more to come than the {length} bytes of the template")
            for start, end in _runs(data):
                put(done + start, data[start:end])
            digest.update(data)
            done += len(data)
            if wanted is not None and wanted > CHUNK:
                bar.at(done, wanted)
    return done.to_bytes(8, "little") + digest.digest()


def _runs(data: bytes) -> Iterator[tuple[int, int]]:
    """The stretches of bytes that are not blocks of zeroes."""
    start = None
    for at in range(0, len(data), _BLOCK):
        if data[at : at + _BLOCK] == _ZEROES[: len(data) - at]:
            if start is not None:
                yield start, at
            start = None
        elif start is None:
            start = at
    if start is not None:
        yield start, len(data)


def _seal(path: str, length: int, digest: bytes | None) -> int:
    """See that the file is what was made, and let nobody write to it; its mode.

    Args:
        digest: the length and SHA-256 of what it begins with, or None.

    Raises:
        Trouble: it is not, or is not to be had here.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failed:
        raise Trouble(
            f"cannot read {path} here: {failed.strerror}",
            hint="Run this where the daemon runs, as a user who may read what it makes.",
        ) from None
    try:
        there = os.fstat(fd)
        if there.st_size != length:
            raise Trouble(f"{path} has {there.st_size} bytes and not {length}")
        if digest is not None and _digest(fd, int.from_bytes(digest[:8], "little")) != digest[8:]:
            raise Trouble(f"{path} does not hold what was written to it")
        mode = modes.S_IMODE(there.st_mode) & ~0o222
        try:
            os.fchmod(fd, mode)
        except OSError as failed:
            raise Trouble(
                f"cannot make {path} read-only: {failed.strerror}",
                hint="Run this as the daemon's user.",
            ) from None
        os.fsync(fd)
    finally:
        os.close(fd)
    return mode


def _digest(fd: int, length: int) -> bytes:
    from hashlib import sha256

    digest = sha256()
    for at in range(0, length, CHUNK):
        digest.update(os.pread(fd, min(CHUNK, length - at), at))
    return digest.digest()


def _check_clones(client: Client, path: str, length: int) -> None:
    """See that the daemon would make clones of it.

    Raises:
        Trouble: it would not, and why.
    """
    options = {**_clone(path, length), "qom-type": f"{PREFIX}file", "id": "memctl-clone"}
    told = client.execute("x-memdev-explain", options)
    if told["verdict"] != "works":
        raise Trouble(f"{path} is no template: {told['text'][0]}")


def _clone(path: str, length: int) -> dict[str, JSON]:
    return {"mem-path": path, "size": length, "share": False, "readonly": True, "rom": "off"}


def _lines(path: str, length: int) -> dict[str, str]:
    """How QEMU and memd make a clone, as their command lines have it."""
    short = _short(length)
    # A comma in a value is written twice.
    escaped = path.replace(",", ",,")
    options = f"size={short},mem-path={escaped},share=off,readonly=on,rom=off"
    object_option = f"-object {_quoted(f'{PREFIX}file,id=ram,{options}')}"
    return {
        "qemu": f"-m {short} -machine q35,memory-backend=ram {object_option}",
        "memd": _quoted(f"{PREFIX}file,id=clone,{options}"),
    }


def _short(length: int) -> str:
    """A size as an option has it, in the largest unit that divides it."""
    for shift, unit in ((30, "G"), (20, "M"), (10, "K")):
        if not length & ((1 << shift) - 1):
            return f"{length >> shift}{unit}"
    return str(length)


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        # It was not made, or is not this user's to remove.
        pass
