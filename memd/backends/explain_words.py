"""An explanation in plain words: a sentence a line."""

from __future__ import annotations

from memd.backends.base import MemoryBackend
from memd.backends.explain_data import DENIED, FILE, PRIVATE
from memd.backends.plan import Plan
from memd.hostmem.planning import PlannedFile
from memd.hostmem.spec import MapSpec
from memd.json_types import JSONObject
from memd.sizes import size_option, size_text

_SIZES = ("align", "hugetlbsize", "offset", "size")
"""Properties that are sizes in bytes."""

_WRITES = {
    DENIED: "Nothing can be written to it: the kernel refuses (ROM).",
    FILE: "What is written to it is seen by everybody who maps the file, at once.",
    PRIVATE: (
        "What is written to it stays private: a page is copied when it is first written, and"
        " nobody else sees the copy."
    ),
}
_ANONYMOUS_WRITES = "What is written to it is the daemon's alone."
_DISCARDS = {
    "zeroes": "Discarding a range drops its pages; it reads as zeroes then.",
    "hole": "Discarding a range punches a hole into the file, for everybody who maps it.",
    "refused": "Discarding a range is refused.",
}
_SHARING = {
    "no": "No other process can share it.",
    "descriptor": "Another process can map it: x-memdev-export hands its descriptor out.",
    "path": "Another process can map the same file, by its path or by descriptor.",
}
_SURVIVAL = {
    "no": "Its content does not outlive the daemon.",
    "descriptor": (
        "Its content outlives the daemon only while somebody else holds its descriptor: another"
        " process, or the service manager's store."
    ),
    "file": "Its content is in the file, and there after a restart of the daemon.",
}
_POOLED = "A pool has it ready, with all its pages: nothing is made before the answer."
_CHANGES = {
    "create": "making it",
    "resize": "giving it its size",
    "write": "what is written to the memory",
    "discard": "discarding memory",
}


def spelled(options: JSONObject) -> str:
    """Arguments of object-add as `--object` takes them."""
    parts = [options["qom-type"]]
    for name, value in options.items():
        if name == "qom-type":
            continue
        if isinstance(value, list):
            parts += [f"{name}.{index}={member}" for index, member in enumerate(value)]
            continue
        if isinstance(value, bool):
            text = "on" if value else "off"
        elif name in _SIZES:
            text = size_option(value)
        else:
            text = str(value).replace(",", ",,")
        parts.append(f"{name}={text}")
    return ",".join(parts)


def words(backend: MemoryBackend, plan: Plan, told: JSONObject) -> list[str]:
    """The explanation in words.

    Args:
        told: the explanation as data, its warnings and suggestion included.
    """
    text = [_verdict(backend, plan)]
    if "error" in told and "hint" in told["error"]:
        text.append(f"The log would say besides: {told['error']['hint']}")
    if plan.error is None and plan.spec is not None:
        text += _story(backend, plan, plan.spec, told)
    text += [f"Warning: {warning['text']}" for warning in told["warnings"]]
    suggestion = told.get("suggestion")
    if suggestion is not None:
        text.append(f"Better: {spelled(suggestion['options'])}")
        text.append(f"Why: {suggestion['why']}")
    return text


def _verdict(backend: MemoryBackend, plan: Plan) -> str:
    if plan.error is not None:
        return f"It would fail: {plan.error.desc}"
    what = f"{backend.qom_type.name}, {size_text(backend.size)}."
    if plan.unsure is None:
        return f"It would work: {what}"
    return f"It may work, which only trying tells: {what}"


def _story(backend: MemoryBackend, plan: Plan, spec: MapSpec, told: JSONObject) -> list[str]:
    file = plan.file
    text = [_file(backend, file, told), _mapping(spec, told)]
    if spec.length != spec.size:
        text.append(
            f"The memory takes whole pages: {size_text(spec.length)} for"
            f" {size_text(spec.size)} asked for."
        )
    if file is None:
        text.append(_ANONYMOUS_WRITES)
    else:
        text.append(_WRITES[told["writes"]])
        if file.kind == "file":
            text.append(_changes(told["file-changes"]))
    text += [
        _DISCARDS[told["discard"]],
        _SHARING[told["shareable"]],
        _survives(file, told["survives-restart"]),
    ]
    if backend.prealloc:
        text.append(_POOLED if plan.pooled else _prealloc(backend, spec))
        if plan.pooled is False:
            text.append("A pool is for such memory, and none of it is ready.")
    elif spec.reserve and file is not None and file.huge:
        text.append("The huge pages are set aside now, and filled when they are first touched.")
    if backend.host_nodes:
        text.append(f"Its pages come from NUMA nodes {backend.host_nodes}: {backend.policy}.")
    if not backend.dump:
        text.append("Core dumps of the daemon leave it out.")
    return text


def _file(backend: MemoryBackend, file: PlannedFile | None, told: JSONObject) -> str:
    if file is None:
        return "There is no file behind it: it is anonymous memory."
    how = "|".join(told["file"]["open-flags"])
    path = backend.file_path
    if path is None:
        names = {
            "memfd": "a memfd, a file in memory without a name",
            "shm": "POSIX shared memory, a file in /dev/shm whose name is gone at once",
            "guest-memfd": "a guest_memfd of a virtual machine that is made for it",
        }
        return f"Its memory is {names[file.kind]} ({how})."
    if file.kind == "directory":
        return f"A file without a name is made in the directory {path} ({how})."
    gets = told["file"].get("gets-size")
    if file.creates:
        sized = "" if gets is None else f" and given {size_text(gets)}"
        return f"{path} does not exist: it is made with mode 0644{sized} ({how})."
    access = "read-only" if file.read_only else "for reading and writing"
    if gets is not None:
        sized = f"; it is empty, and given {size_text(gets)}"
    elif file.had > 0:
        sized = f"; its {size_text(file.had)} stay as many as they are"
    else:
        sized = ""
    return f"{path} is opened {access} ({how}){sized}."


def _mapping(spec: MapSpec, told: JSONObject) -> str:
    mapping = told["mapping"]
    how = "shared" if spec.shared else "private"
    allowed = "read-only" if told["writes"] == DENIED else "for reading and writing"
    flags = ", ".join("|".join(mapping[name]) for name in ("protection", "flags"))
    where = f" from offset {spec.offset:#x} of the file" if spec.offset else ""
    pages = size_text(spec.page_size)
    return f"It is mapped {how}, {allowed}{where}, in pages of {pages} ({flags})."


def _changes(changes: list[str]) -> str:
    if not changes:
        return "The file can't change through it."
    *first, last = (_CHANGES[change] for change in changes)
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"The file changes by {listed}."


def _survives(file: PlannedFile | None, survival: str) -> str:
    text = _SURVIVAL[survival]
    if survival == "file" and file is not None and file.in_memory:
        text += f" A restart of the host loses it: the file is in memory ({file.file_system})."
    return text


def _prealloc(backend: MemoryBackend, spec: MapSpec) -> str:
    threads = backend.prealloc_threads
    who = "one thread" if threads == 1 else f"up to {threads} threads"
    what = "allocated" if spec.protection & 2 else "read in"
    return f"All its pages are {what} before the answer, by {who}."
