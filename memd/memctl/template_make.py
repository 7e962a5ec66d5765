"""`memctl template make`: the first half of VM templating, a file that clones map copy-on-write.

What a template holds comes from an image or from a backend that is there. It gets
its name when it is whole and nobody can write to it any more, and only where
nothing of that name is; then the daemon has to map it as a clone.
"""

from __future__ import annotations

import argparse
import os
import stat as modes
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from typing import IO

from memd.client import Client
from memd.errors import QMPError, refusing
from memd.hostmem.spec import round_up
from memd.json_types import JSONObject
from memd.memctl.add import make
from memd.memctl.backends import PREFIX, stat
from memd.memctl.context import USAGE, Context, Trouble, absolute
from memd.memctl.progress import Bar
from memd.memctl.save import save
from memd.memctl.sizes import PAGE, exact, size
from memd.memctl.write import CHUNK, length_of, opened
from memd.sizes import size_option


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="the template's file; must not exist yet")
    content = parser.add_mutually_exclusive_group(required=True)
    content.add_argument(
        "--of", metavar="ID", help="with the content of this backend, such as a stopped machine's"
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
        "FILE appears when it is complete, read-only, and must not exist yet. The daemon has to run"
        " on this host, and maps the file; then the commands are printed with which QEMU and memd"
        " make clones of it. On an error no file is left."
    )


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Make it."""
    if arguments.of and arguments.image:
        raise Trouble("--from goes with --size: with --of, the backend has the content", USAGE)
    wanted: int = arguments.size or 0
    if not arguments.of and (wanted % PAGE or not wanted):
        raise Trouble(f"a template is of whole pages of {PAGE} bytes", USAGE)
    path = absolute(arguments.file)
    if os.path.lexists(path):
        raise _is_there_already(path)
    with context.connect() as client, _Draft(path) as draft:
        if arguments.of:
            backend = stat(client, arguments.of)
            page = backend["page-size"]
            length: int = round_up(backend["size"], page)
            save(client, arguments.of, draft.place(), given_up="nothing of it stays")
            draft.open()
            mode = 0o400
        else:
            length = wanted
            draft.create()
            _fill(draft.fd, length, arguments.image)
            mode = 0o444 & ~_umask()
        _seal(draft.fd, path, length, mode)
        draft.appear()
        _check_clones(context, client, draft.fd, path, length)
        draft.keep()
    told = {"filename": path, "size": length, "mode": f"{mode:04o}", **_lines(path, length)}
    context.tell(
        told,
        [
            f"{path}: a template of {exact(length)}, mode {mode:04o}.",
            "Clones in QEMU:",
            f"  qemu-system-x86_64 {told['qemu']} ...",
            "Clones in memd:",
            f"  memctl add {told['memd']}",
        ],
    )


def _is_there_already(path: str) -> Trouble:
    return Trouble(
        f"{path} is there already",
        hint="A template that clones map must not change: choose another name, or remove it.",
    )


class _Draft:
    """A file that is to get its name once it is whole; a context manager.

    Until then it has none, or lies in a directory of its own beside the place:
    where the daemon makes it, or the file system has no files without a name.
    Unless it is kept, nothing of it stays, and nothing else is touched.

    Attributes:
        fd: its descriptor, once it was created or opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._parent = os.path.dirname(path)
        self._directory = ""
        self._made: os.stat_result | None = None
        self.fd = -1

    def place(self) -> str:
        """A path for it in a directory of its own; raises `Trouble`."""
        from secrets import token_hex

        self._directory = os.path.join(self._parent, f".memctl-{token_hex(8)}")
        with self._making():
            os.mkdir(self._directory, 0o700)
            # The daemon may be another user, who can write where the template is to be.
            around = os.stat(self._parent)
            with suppress(PermissionError):
                os.chown(self._directory, around.st_uid, around.st_gid)
                os.chmod(self._directory, modes.S_IMODE(around.st_mode))
        return self._inside()

    def create(self) -> None:
        """Make it, empty; raises `Trouble`."""
        flags = os.O_RDWR | os.O_CLOEXEC
        with self._making():
            try:
                self.fd = os.open(self._parent, flags | os.O_TMPFILE, 0o600)
            except OSError as failed:
                from memd.hostmem.save import NO_UNNAMED_FILES

                if failed.errno not in NO_UNNAMED_FILES:
                    raise
                self.fd = os.open(self.place(), flags | os.O_CREAT | os.O_EXCL, 0o600)

    def open(self) -> None:
        """Open what was put at its place; raises `Trouble`."""
        hint = "Run this where the daemon runs, as a user who may read what it makes."
        with refusing("cannot read here what the daemon has saved", partial(Trouble, hint=hint)):
            self.fd = os.open(self._inside(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def appear(self) -> None:
        """Give it its name; raises `Trouble` where something of that name is."""
        from memd.hostmem.save import link_descriptor

        self._made = os.fstat(self.fd)
        parent = os.open(self._parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with self._making():
            try:
                link_descriptor(self.fd, parent, os.path.basename(self._path))
                os.fsync(parent)
            except FileExistsError:
                self._made = None
                raise _is_there_already(self._path) from None
            finally:
                os.close(parent)

    def keep(self) -> None:
        """Let it stay."""
        self._made = None

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._made is not None:
            with suppress(OSError):
                if os.path.samestat(self._made, os.lstat(self._path)):
                    os.unlink(self._path)
        if self.fd >= 0:
            # FUSE and NFS keep an open file, by another name, in its directory.
            os.close(self.fd)
        if self._directory:
            # A daemon that still saves finds no place for it any more.
            for _ in range(3):
                with suppress(OSError):
                    os.unlink(self._inside())
                with suppress(OSError):
                    os.rmdir(self._directory)
                    break

    def _inside(self) -> str:
        return os.path.join(self._directory, "template")

    def _making(self) -> AbstractContextManager[None]:
        """Have an `OSError` raised as a `Trouble`."""
        return refusing(f"cannot make {self._path}", Trouble)


def _fill(fd: int, length: int, image: str | None) -> None:
    """Give a new file its size and content; raises `Trouble`."""
    with refusing("cannot write the template", Trouble):
        if image is None:
            os.truncate(fd, length)
            return
        with opened(image) as source:
            wanted = length_of(source)
            if wanted is not None and wanted > length:
                raise Trouble(f"{image} has {wanted} bytes, and the template is to have {length}")
            _copy(fd, source, length, wanted)


def _copy(fd: int, source: IO[bytes], length: int, wanted: int | None) -> None:
    from memd.hostmem.host import Host
    from memd.hostmem.save import Output

    done = 0
    with closing(Output(Host(), fd, length)) as output, Bar("the template", "filling") as bar:
        while data := source.read(CHUNK):
            if done + len(data) > length:
                raise Trouble(f"there is more to come than the {length} bytes of the template")
            output.put(done, data)
            done += len(data)
            if wanted is not None and wanted > CHUNK:
                bar.at(done, wanted)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _seal(fd: int, path: str, length: int, mode: int) -> None:
    """Let nobody write to a file any more; raises `Trouble`."""
    there = os.fstat(fd)
    if there.st_size != length:
        raise Trouble(f"{path} would have {there.st_size} bytes and not {length}")
    hint = "Run this as the daemon's user."
    with refusing(f"cannot make {path} read-only", partial(Trouble, hint=hint)):
        os.fchmod(fd, mode)
    os.fsync(fd)


def _check_clones(context: Context, client: Client, fd: int, path: str, length: int) -> None:
    """See that the daemon can make clones of the very file.

    Raises:
        Trouble: it can't, and why.
    """
    from secrets import token_hex

    id = f"memctl-{token_hex(8)}"
    options: JSONObject = {"qom-type": f"{PREFIX}file", "id": id, "mem-path": path}
    options |= {"size": length, "share": False, "readonly": True, "rom": "off"}
    if os.fstat(fd).st_blksize > PAGE:
        # Huge pages may be there for the template, and not yet for a clone.
        options["reserve"] = False
    try:
        make(context, client, options)
    except QMPError as error:
        raise Trouble(f"{path} is not a template: {error.desc}") from None
    try:
        # TCP carries no descriptors.
        if isinstance(context.address(), str):
            with client.export(id, writable=False) as memory:
                if not os.path.sameopenfile(memory.fd, fd):
                    raise Trouble(f"the daemon has another file at {path}")
    finally:
        client.execute("object-del", {"id": id})


def _lines(path: str, length: int) -> dict[str, str]:
    """How QEMU and memd make a clone, as their command lines have it."""
    from shlex import quote

    short = size_option(length)
    # A comma in a value is written twice.
    escaped = path.replace(",", ",,")
    options = f"size={short},mem-path={escaped},share=off,readonly=on,rom=off"
    object_option = f"-object {quote(f'{PREFIX}file,id=ram,{options}')}"
    return {
        "qemu": f"-m {short} -machine q35,memory-backend=ram {object_option}",
        "memd": quote(f"{PREFIX}file,id=clone,{options}"),
    }
