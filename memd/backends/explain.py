"""Predicts `object-add` by running it with a host that only plans.

What makes memory, `allocation.realize`, is the same code for both: what it would come
to here is what it comes to there, and with the same words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

from memd.backends.allocation import realize
from memd.backends.base import MemoryBackend
from memd.backends.explain_data import describe, error_data
from memd.backends.explain_words import words
from memd.backends.plan import Plan, Proposals, Warnings
from memd.errors import QMPError
from memd.hostmem import capacity, libc
from memd.hostmem.capacity import CannotTell
from memd.hostmem.planning import (
    PlannedFile,
    PlanningHost,
    huge_pages_wanted,
    memory_wanted,
    space_wanted,
)
from memd.hostmem.spec import READ_WRITE, MapSpec, round_up
from memd.json_types import JSONObject
from memd.qom import Tree, UserCreatable
from memd.sizes import rounded, size_text
from memd.work import Job

_T = TypeVar("_T")


async def explain(
    tree: Tree, options: JSONObject, deny_private_discard: bool = False
) -> JSONObject:
    """`x-memdev-explain`, after the schema's checks.

    Args:
        options: the arguments of object-add.
        deny_private_discard: whether the daemon refuses to discard memory of a
            private mapping of a file.
    """
    try:
        obj = tree.objects.prepare(options)
        tree.objects.reserve(obj)
        tree.objects.release(obj)
        if not isinstance(obj, MemoryBackend):
            return _explain_other(obj)
    except QMPError as error:
        return refused(error)
    # Looking at a file may wait for its file system.
    return await Job(lambda: _explain(obj, options, deny_private_discard), on=obj.waits_on)


def refused(error: QMPError) -> JSONObject:
    """The explanation of arguments that are refused before memory comes into it."""
    return {
        "verdict": "fails",
        "error": error_data(error),
        "warnings": [],
        "text": [f"It would fail: {error.desc}"],
    }


def _explain_other(obj: UserCreatable) -> JSONObject:
    """The explanation of what is not memory."""
    told = obj.explain()
    what = f"{obj.qom_type.name}, which is not memory."
    first = f"It would work: {what}" if told else f"It may work, which only trying tells: {what}"
    return {"verdict": "works" if told else "unknown", "warnings": [], "text": [first, *told]}


def _explain(backend: MemoryBackend, given: JSONObject, deny: bool) -> JSONObject:
    plan = plan_of(backend, given)
    plan.deny_private_discard = deny
    told = describe(backend, plan)
    warnings = list(_until_unseen(_warnings(backend, plan)))
    if plan.unsure:
        warnings.append(("host", plan.unsure))
    told["warnings"] = [{"about": subject, "text": text} for subject, text in warnings]
    for changes, why in _until_unseen(_proposals(backend, plan)):
        changed = {**given, **changes}
        options = {name: value for name, value in changed.items() if value is not None}
        if _works(backend.tree, options):
            told["suggestion"] = {"qom-type": options["qom-type"], "options": options, "why": why}
            break
    told["text"] = words(backend, plan, told)
    return told


def plan_of(backend: MemoryBackend, given: JSONObject) -> Plan:
    """The result of making a backend.

    Args:
        backend: its properties are set, and it is not made.
        given: the arguments of object-add that set them.
    """
    plan = Plan(given)
    pools = backend.tree.objects.pools
    plan.pooled = None if pools is None else pools.has(backend)
    host = PlanningHost(backend.tree.host, ready=bool(plan.pooled))
    try:
        backend.check()
        realize(backend, host).close()
    except QMPError as error:
        plan.error = error
    except CannotTell as why:
        plan.unsure = str(why)
    plan.file, plan.spec = host.file, host.spec
    return plan


def _works(tree: Tree, options: JSONObject) -> bool:
    """Whether object-add with these arguments would work."""
    # Without what leads elsewhere in the tree, which is the event loop's.
    alone = {name: value for name, value in options.items() if name != "prealloc-context"}
    try:
        other = tree.objects.prepare(alone)
    except QMPError:
        return False
    return isinstance(other, MemoryBackend) and plan_of(other, alone).verdict == "works"


def _until_unseen(found: Iterator[_T]) -> Iterator[_T]:
    """As many as can be told with what is mounted here."""
    with suppress(CannotTell):
        yield from found


def _warnings(backend: MemoryBackend, plan: Plan) -> Warnings:
    file, spec = plan.file, plan.spec
    yield from backend.warnings(plan)
    if spec is not None and not plan.pooled:
        if file is not None and file.huge:
            yield from _of_huge_pages(backend, spec, file)
        yield from _of_space(backend, plan, spec)
        yield from _without_effect(backend, plan, spec)
        yield from _of_reserve(plan, spec)


def _of_huge_pages(backend: MemoryBackend, spec: MapSpec, file: PlannedFile) -> Warnings:
    wanted = huge_pages_wanted(spec, file)
    row = backend.tree.ledger.row(spec.page_size)
    left = max(0, row["free"] - row["promised"])
    if wanted + row["claims"] <= left:
        return
    numbers = (
        f"{wanted} huge pages of {size_text(spec.page_size)} are wanted, and {left} of"
        f" {row['total']} are free"
    )
    if row["claims"]:
        numbers += f", of which other backends may claim {row['claims']} by copy-on-write"
    if not spec.reserve:
        yield "huge-pages", f"{numbers}: with reserve=off it is mapped, and touching more fails."
    elif wanted <= left:
        yield "huge-pages", f"{numbers}: a write to those may end in SIGBUS then."
    else:
        yield "huge-pages", f"{numbers}."


def _of_space(backend: MemoryBackend, plan: Plan, spec: MapSpec) -> Warnings:
    """Where there is not enough of the file system, or of memory."""
    file = plan.file
    if file is not None and file.free is not None:
        wanted = space_wanted(spec, file)
        if wanted > file.free:
            place = backend.file_path or "/dev/shm"
            yield (
                "space",
                f"the file system of {place} has {rounded(file.free)} left, and the memory may need"
                f" {rounded(wanted)}: pages that do not fit are not available.",
            )
    wanted = memory_wanted(spec, file)
    left = capacity.left_to_use()
    if wanted > left:
        yield (
            "memory",
            f"all of it in use takes {rounded(wanted)} of memory, and {rounded(left)} are"
            " available, swap included: the kernel may end the daemon for it.",
        )


def _without_effect(backend: MemoryBackend, plan: Plan, spec: MapSpec) -> Warnings:
    given = plan.given
    if given.get("merge") and spec.shared:
        yield "merge", "merge=on has no effect: only private memory is merged."
    elif given.get("merge") and not capacity.merging():
        yield "merge", "merge=on has no effect while the kernel does not merge: KSM is off."
    if not backend.prealloc:
        for name in ("prealloc-threads", "prealloc-context"):
            if given.get(name):
                yield name, f"{name} has no effect without prealloc=on."


def _of_reserve(plan: Plan, spec: MapSpec) -> Warnings:
    if plan.given.get("reserve") is not False or spec.page_size > libc.PAGE_SIZE:
        return
    if spec.shared or spec.protection != READ_WRITE:
        yield "reserve", "reserve=off has no effect: nothing is set aside for such memory anyway."
    else:
        yield (
            "reserve",
            "with reserve=off more may be promised than there is, and the kernel may end the"
            " daemon when it is used.",
        )


def _proposals(backend: MemoryBackend, plan: Plan) -> Proposals:
    yield from backend.proposals(plan)
    page_size = libc.PAGE_SIZE if plan.file is None else plan.file.page_size
    if plan.error is not None and backend.size % page_size:
        size = round_up(backend.size, page_size)
        yield {"size": size}, f"the size has to be whole pages of {size_text(page_size)}."
