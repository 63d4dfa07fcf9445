"""How a process that runs a network gets its memory from the system."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def keep_freed_memory() -> None:
    """Let the C library keep large blocks for reuse instead of giving each back to the system.

    For processes that do nothing but run a network. Otherwise memory is mapped for the output of
    each layer, and the system clears every page of it: with torch, the network then takes up to two
    and a half times as long. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_top_pad, m_mmap_threshold, m_arena_max = -1, -2, -3, -8  # malloc.h
        mallopt(m_arena_max, 1)  # arenas of further threads keep no block above 64 MB
        mallopt(m_mmap_threshold, 2**30)
        mallopt(m_trim_threshold, 2**29)
        mallopt(m_top_pad, 2**26)


def ask_for_large_pages() -> None:
    """Ask the system for large pages for memory that this process has allocated and not yet used.

    Each layer reads and writes features on tens of thousands of small pages, and looking those up
    takes time. Only on Linux, and useful only after `keep_freed_memory`.
    """
    if not sys.platform.startswith("linux"):
        return
    madvise, hugepage = ctypes.CDLL(None).madvise, 14  # sys/mman.h
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            if line.endswith("[heap]\n"):
                start, end = (int(address, 16) for address in line.split()[0].split("-"))
                madvise(start, end - start, hugepage)  # a hint: it may be ignored
