"""File descriptors: enough of them from the start, and what happens when none is left.

Every socket is one, and a shell gives a process 1024. So the limit is raised as far as the settings
need and the system allows, and what is missing is said at the start.

When none is left, nothing can be accepted: the kernel keeps clients waiting in its queue, and those
who are served do not notice. The oldest socket that has been without a session for a while makes
room, so that a flood of half handshakes pushes out itself here too. The log says so once a minute,
not at every attempt.
"""

from __future__ import annotations

import errno
import math
import resource
from collections.abc import Callable
from typing import TypeAlias

import structlog
import trio

from voxtral_actors import limits

log = structlog.get_logger(__name__)

NOTHING_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""Of the process, of the system, and of the kernel's memory."""

Accepts: TypeAlias = trio.abc.Listener[trio.abc.HalfCloseableStream]


def allow(connections: int) -> None:
    """Raise this process's limit of open files for so many connections, as far as is allowed."""
    own = limits.MAX_UNADMITTED_SOCKETS + limits.OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = own + connections * limits.DESCRIPTORS_A_CONNECTION
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < own + connections:
        log.warning(
            "server.few_descriptors",
            open_files_limit=soft,
            needed=own + connections,
            advice="raise the hard limit of open files (ulimit -Hn, LimitNOFILE)",
        )


class PatientListener(Accepts):
    """Accepts what the listener inside accepts, and waits when there is nothing to do it with."""

    def __init__(self, inside: Accepts, make_room: Callable[[], None]) -> None:
        self._inside = inside
        self._make_room = make_room
        self._silent_until = -math.inf

    async def accept(self) -> trio.abc.HalfCloseableStream:
        while True:
            if isinstance(self._inside, trio.SocketListener):
                # Without a descriptor accept() fails even if nobody is there to be accepted.
                await trio.lowlevel.wait_readable(self._inside.socket)
            try:
                return await self._inside.accept()
            except OSError as error:
                if error.errno not in NOTHING_LEFT:
                    raise
                self._tell(error)
            self._make_room()
            await trio.sleep(limits.ACCEPT_RETRY_S)

    async def aclose(self) -> None:
        await self._inside.aclose()

    def _tell(self, error: OSError) -> None:
        now = trio.current_time()
        if now >= self._silent_until:
            self._silent_until = now + limits.SAME_LINE_S
            log.error("listener.out_of_descriptors", error=error.strerror)
