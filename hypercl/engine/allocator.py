"""Memory that a step has freed stays with the process, whose next step takes it again."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc's malloc give back less to the system; other C libraries stay as they are.

    It gives back what is free at the end of its heap, depending on the order of allocations. The
    next step then touches each page for the first time again, which with many earlier tasks is a
    part of its time that can be seen.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
