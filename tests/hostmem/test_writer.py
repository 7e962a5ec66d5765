"""Lines that are written while nobody reads them."""

from __future__ import annotations

import fcntl
import os
import threading

from memd.hostmem.writer import MOST_LINES, LineWriter

MORE = 500


def test_so_many_lines_are_held_and_the_others_counted() -> None:
    read, write = os.pipe()
    try:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        lines = LineWriter(write, b"were lost")
        # The thread takes these, and waits.
        os.set_blocking(write, False)
        filled = 0
        try:
            while True:
                filled += os.write(write, b"f")
        except BlockingIOError:
            os.set_blocking(write, True)
        lines.write(b"first\n")
        assert not lines.flush(0.05)
        for number in range(MOST_LINES + MORE):
            lines.write(b"%d\n" % number)
        found: list[bytes] = []

        def collect() -> None:
            with os.fdopen(os.dup(read), "rb") as pipe:
                pipe.read(filled)
                while line := pipe.readline():
                    found.append(line)

        reader = threading.Thread(target=collect)
        reader.start()
        assert lines.flush(60)
    finally:
        os.close(write)
        os.close(read)
    reader.join(60)
    lost = found.pop()
    # The thread may have been late, and not have taken the first one away.
    assert lost in (b"%d were lost\n" % MORE, b"%d were lost\n" % (MORE + 1))
    assert found[:2] == [b"first\n", b"0\n"]
    assert len(found) == MOST_LINES + 1 - (lost == b"%d were lost\n" % (MORE + 1))
