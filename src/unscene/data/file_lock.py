"""A lock on a file that ends with the process which holds it, however that ends."""

from __future__ import annotations

import io
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: nobody knows whether another process writes
    fcntl = None  # type: ignore[assignment]


def lock(file: IO[bytes] | io.FileIO) -> bool | None:
    """Lock an open file for as long as it is open.

    Returns:
        True when this process has it now, False when another one has, None when the system or the disk has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
