"""Files that are replaced as a whole, and a lock on their folder.

`write` leaves the old file or the new one, wherever it is stopped, `kill -9` and power loss
included: the bytes go into a temporary file of the same folder, reach the disk, and only then take
the file's name. What a killed process leaves behind is the temporary file, which the next `write`
of the same name uses again; so two processes must not write one file at the same time, and
`locked` sees to that. The system lets go of a lock when its holder dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Network file systems without locks: a wrong error would be worse than no lock.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}


def write(path: Path, data: bytes, *, mtime_ns: int | None = None) -> None:
    """Replace `path`, or make it; its permissions stay, its time is `mtime_ns` if given.

    Raises:
        OSError: it could not be written for certain; `path` is as it was, or wholly the new one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            with suppress(FileNotFoundError):
                os.fchmod(file, stat.S_IMODE(os.stat(path).st_mode))  # noqa: PTH116 - for the tests
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            if mtime_ns is not None:
                os.utime(file, ns=(mtime_ns, mtime_ns))
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, path)  # noqa: PTH105 - one module to watch, for the tests
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make the names in a folder last through a power loss."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush(file: int) -> None:
    """Make what was written to a file last through a power loss."""
    os.fsync(file)


@contextmanager
def locked(path: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; `while_waiting` is called again and again, and sleeps or raises.

    Raises:
        OSError: the lock file cannot be made.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while not _try_lock(file):
            while_waiting()
        yield
    finally:
        os.close(file)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
