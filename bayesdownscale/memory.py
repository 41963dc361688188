"""Freed memory goes back to the system."""

import ctypes

M_MMAP_THRESHOLD, LARGE = -3, 2**20  # a name of malloc.h; bytes


def return_freed_memory() -> bool:
    """Ask the C library to give every freed array of 1 MiB or more back to the system; whether it was asked.

    glibc raises its own limit to 32 MiB as a program frees arrays, and what lies below stays with the process: reading
    a posterior of 4 GB block by block, as much again as was in use. Other C libraries are left as they are.
    """
    try:
        return bool(ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE))
    except (OSError, AttributeError):
        return False
