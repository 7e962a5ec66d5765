"""Access to the kernel: files, mappings, population, NUMA.

The only user of mmap and of system calls by number. The modules are imported
by name, and late: `libc` brings in ctypes, which takes a millisecond that a
daemon's start-up need not pay.
"""
