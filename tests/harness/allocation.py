"""How many bytes the process holds from its allocator, for tests that nothing is left behind.

Exact under AddressSanitizer (`make sanitize`, where PYTHONMALLOC=malloc also counts each Python object); otherwise
glibc's figure, which lacks Python's small objects and includes freed blocks that the allocator keeps at hand.
"""

from __future__ import annotations

import ctypes

__all__ = ["allocated_bytes"]


class _MallocFigures(ctypes.Structure):
    """mallinfo2(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def allocated_bytes() -> int:
    """Bytes that are allocated now in the whole process."""
    library = ctypes.CDLL(None)
    if hasattr(library, "__sanitizer_get_current_allocated_bytes"):
        count = library.__sanitizer_get_current_allocated_bytes
        count.restype = ctypes.c_size_t
        return int(count())
    library.mallinfo2.restype = _MallocFigures
    figures = library.mallinfo2()
    return int(figures.uordblks + figures.hblkhd)  # on the heap, and large blocks mapped on their own
