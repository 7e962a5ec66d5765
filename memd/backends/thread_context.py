"""`thread-context`: a thread whose CPUs other threads run on.

The thread does nothing but exist: management software may move it to other
CPUs by its `thread-id`, and the threads that preallocate memory follow it
there. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import errno
import os
import threading

from memd.errors import QMPError
from memd.qapi.visit import visit_list, visit_uint16
from memd.qom import OBJECT, Description, ObjectType, Property, Tree, UserCreatable


class ThreadContext(UserCreatable):
    """A thread that holds an affinity.

    Attributes:
        thread_id: the thread's id, as the kernel counts; -1 before there is one.
    """

    thread_id = -1
    # What is asked for before the thread runs, and by which property.
    _cpus: set[int] | None = None
    _mixed = ""
    _end: threading.Event | None = None

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str) -> None:
        super().__init__(qom_type, tree, id)
        # The CPUs that the thread had at its end: a backend may still refer to it.
        self._last: set[int] = set()

    async def complete(self) -> None:
        """Start the thread; see `UserCreatable.complete`."""
        end = threading.Event()
        thread = threading.Thread(target=end.wait, name=f"TC {self.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as failed:
            raise QMPError(f"cannot create a thread: {failed}") from None
        self._end = end
        self.thread_id = thread.native_id or -1
        if self._cpus is not None:
            try:
                self.apply(self._cpus)
            except QMPError:
                await self.finalize()
                raise

    async def finalize(self) -> None:
        """End the thread; see `UserCreatable.finalize`."""
        if self._end is not None:
            self._last = self.affinity()
            self._end.set()
            self._end = None

    def describe(self) -> Description:
        """Without CPUs where it runs on all: it does not stay on these for good."""
        described = super().describe()
        if self.affinity() == os.sched_getaffinity(0):
            described["properties"].pop("cpu-affinity", None)
        return described

    def explain(self) -> list[str]:
        from memd.hostmem.capacity import online_cpus

        cpus = self._cpus
        if cpus is not None and not cpus & online_cpus():
            raise cannot_run_there(OSError(errno.EINVAL, os.strerror(errno.EINVAL)))
        where = "where the daemon runs" if cpus is None else f"on CPUs {sorted(cpus)}"
        return [
            f"A thread that does nothing is started; what is preallocated with"
            f" prealloc-context={self.name} is so {where}, or where the thread is moved to."
        ]

    def affinity(self) -> set[int]:
        """The CPUs that the thread may run on."""
        if self._end is None:
            return self._last
        return os.sched_getaffinity(self.thread_id)

    def choose(self, cpus: set[int], name: str) -> None:
        """Take the CPUs that the property `name` stands for."""
        if self._end is not None:
            self.apply(cpus)
            return
        self._cpus = cpus
        self._mixed = name

    def refuse_mixing(self, name: str) -> None:
        """Raise `QMPError` where the other property was given as well."""
        if self._end is None and self._mixed not in ("", name):
            raise QMPError("Mixing CPU and node affinity not supported")

    def apply(self, cpus: set[int]) -> None:
        """Have the thread run on these CPUs; raises `QMPError`."""
        try:
            os.sched_setaffinity(self.thread_id, cpus)
        except OSError as failed:
            raise cannot_run_there(failed) from None


def cannot_run_there(failed: OSError) -> QMPError:
    """The error for CPUs that the kernel refuses."""
    return QMPError(f"Setting CPU affinity failed: {failed.strerror}")


def _get_cpus(context: ThreadContext) -> list[int]:
    return sorted(context.affinity())


def _set_cpus(context: ThreadContext, cpus: list[int]) -> None:
    context.refuse_mixing("cpu-affinity")
    if not cpus:
        raise QMPError("CPU list is empty")
    context.choose(set(cpus), "cpu-affinity")


def _set_nodes(context: ThreadContext, nodes: list[int]) -> None:
    from memd.hostmem.numa import cpus_of

    context.refuse_mixing("node-affinity")
    if not nodes:
        raise QMPError("Node list is empty")
    cpus = cpus_of(nodes)
    if not cpus:
        raise QMPError("The nodes select no CPUs")
    context.choose(cpus, "node-affinity")


THREAD_CONTEXT = ObjectType(
    "thread-context",
    OBJECT,
    interfaces=("user-creatable",),
    factory=ThreadContext,
    properties=(
        Property("thread-id", "int", get=lambda context: context.thread_id),
        Property("node-affinity", "int", visit=visit_list(visit_uint16), set=_set_nodes),
        Property(
            "cpu-affinity",
            "int",
            visit=visit_list(visit_uint16),
            get=_get_cpus,
            set=_set_cpus,
        ),
    ),
)
