"""What the server takes from outside, given by the seed: so that two runs of it are the same run.

Task order, ids, wall time, and the figures of this process that `/metrics` tells. A new source of
difference shows in `test_p21_…`, and its remedy belongs here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import hypercorn.config
import trio._core._run
from prometheus_client.registry import CollectorRegistry

from tests.connection import fakes
from voxtral_actors.connection import supervisor
from voxtral_actors.server import heartbeat, metrics, quart_app


@contextmanager
def same_every_time(seed: object) -> Iterator[None]:
    """While this lasts, a server has nothing but the seed to be different by."""
    rng = Random(f"{seed}/ids")
    clock = SimpleNamespace(time=lambda: 1_700_000_000.0, monotonic=lambda: 0.0)
    ids = SimpleNamespace(uuid4=lambda: uuid.UUID(int=rng.getrandbits(128)))
    with ExitStack() as stack:
        for owner, name, value in (
            (trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            (quart_app, "uuid", ids),
            # Figures of this process, as `/metrics` tells them.
            (metrics, "process_registry", CollectorRegistry),
            (heartbeat, "sys", SimpleNamespace(getallocatedblocks=lambda: 0)),
            (quart_app, "time", clock),
            (hypercorn.config, "time", clock.time),
            (supervisor, "open_wiring", fakes.recorded_wiring),
        ):
            stack.enter_context(patch.object(owner, name, value))
        yield
