"""Runs inside vLLM: a step of a session costs the same at its end as at its start.

vLLM finds `install` by the entry point `vllm.general_plugins` and calls it in each of its
processes. So this file imports nothing of this package, and vllm only where it runs.

What grows with age. A session is one request whose prompt grows by a frame of audio a step. vLLM
schedules it as a new request each time, and a new request goes to the workers with all its audio
features, of which the list has one for every frame so far. That list is rebuilt in the scheduler at
each step. Where the workers are processes of their own it is also pickled and sent, which costs
several times as much: after five minutes a step takes seven times as long as at its start.

What is done about it. A feature is needed until its tokens are computed: from then on the KV cache
has all that the model will ever look at. After each new frame the features that are computed for
good are dropped from the request (`FlatSessions.trim`). The scheduler and the workers know features
by their index in the list. The workers get the whole list at every step, so theirs moves along; the
scheduler keeps indices beyond a step in one place, the encoder cache's list of what a request has
in it, and that is renumbered. Prompt tokens stay: vLLM needs their number, and a thousand of them
cost as much as one feature.

What is lost. vLLM preempts a request by dropping its KV cache and computing it anew later, which
cannot be done without the features. Such a session ends in vLLM's own way for a request that went
wrong, `finish_reason` "error", before a token is computed from audio that is not there. Our server
tells the client that it may try again. With as many slots as the KV cache has room for (see
`vllm_realtime`), nothing is ever preempted.

When it is on (`why_off`). Somebody asked for it in vLLM's `additional_config`, where our server
puts its setting; vllm is of a version that this was tested with and has everything in `TOUCHED`;
the model is Voxtral Realtime; and nothing reads features of computed tokens: prefix caching hashes
them, connectors move them to other machines, speculative decoding goes back. If any of it does not
hold, vLLM is left as it is and its log says why. The decision is each scheduler's own and patches
that one object, so other models in the same environment never meet it. An engine process tells the
server what it decided, and what came of it (`ask`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

TESTED_VERSIONS = ("0.32.0",)
"""Of vllm. On any other one the plugin stays off until the tests have passed with it."""

ARCHITECTURE = "VoxtralRealtimeGeneration"

KEY = "voxtral_flat_sessions"
"""The switch in vLLM's `additional_config`, and the name of what is added to vLLM's objects: to the
scheduler its `FlatSessions`, to the engine core the method that reports on it."""

TAIL_TOKENS = 8
"""Features of so many computed tokens are kept. A step that is in flight when a frame is complete
takes back its one token, no more, so this is on the safe side; one feature costs some 20 us."""

TOUCHED: Mapping[str, tuple[str, ...]] = {
    "scheduler": (
        # Replaced on the object, each calls the original:
        "_update_request_as_session",  # a session gets its next frame
        "_preempt_request",  # a request loses its KV cache
        "_handle_blocked_waiting_request",  # may this waiting request be scheduled?
        # Used:
        "vllm_config",
        "encoder_cache_manager",
        "encoder_cache_mismatch_reqs",  # ids that the end of a step finishes with an error
    ),
    "encoder_cache_manager": ("request_cached_ids",),
}
"""Everything private of vLLM that this file relies on, beside `Request.mm_features`, a list that is
replaced and never changed in place, for a worker in the same process holds it too; its items'
`mm_position`; and `Request.num_computed_tokens`."""

_TRIMMED_TO = "_voxtral_trimmed_to"
"""Set on a `Request`: audio of tokens before this one is gone."""


@dataclasses.dataclass(frozen=True)
class State:
    """What an engine process says of the plugin."""

    why_off: str
    """Empty if it is on."""
    dropped: int = 0
    """Features dropped so far."""
    lost: int = 0
    """Sessions that were preempted and could not be computed anew."""

    @property
    def on(self) -> bool:
        return not self.why_off


def additional_config(*, on: bool) -> dict[str, Any]:
    """What `additional_config` of vLLM's engine arguments must have in it."""
    return {KEY: on}


def why_off(version: str, config: Any) -> str:
    """Why the plugin stays off in a vllm of this version with this `VllmConfig`; empty if it does
    not. The server can tell from this beforehand what `ask` will say."""
    extra = config.additional_config
    if not isinstance(extra, dict) or not extra.get(KEY):
        return "it is switched off"
    if version.partition("+")[0] not in TESTED_VERSIONS:
        return f"it is not tested with vllm {version}, only with {', '.join(TESTED_VERSIONS)}"
    if ARCHITECTURE not in (config.model_config.architectures or ()):
        return f"the model is no {ARCHITECTURE}"
    if config.cache_config.enable_prefix_caching:
        return "prefix caching is on"
    for name in ("kv_transfer_config", "ec_transfer_config", "speculative_config"):
        if getattr(config, name) is not None:
            return f"vllm runs with a {name}"
    return ""


async def ask(llm: Any) -> list[State]:
    """Ask the engine processes of an `AsyncLLM`; one answer for each copy of the model."""
    call = llm.engine_core.call_utility_all_async
    try:
        answers = await call(KEY)
    except Exception as error:  # vLLM passes on what it met there as a plain Exception
        return [State(f"the engine process has not loaded it: {error}")]
    return [State(**answer) for answer in answers]


def install() -> None:
    """Entry point. It must not keep vLLM from starting, whatever it finds."""
    from vllm.logger import init_logger

    # A name below vllm's, whose handlers it then has.
    logger = init_logger("vllm.voxtral_actors")
    try:
        _install(logger)
    except Exception:  # vLLM serves as well without it, only slower
        logger.exception("Flat sessions: off, this vllm is not as expected.")


def _install(logger: Any) -> None:
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.core import EngineCore

    if hasattr(EngineCore, KEY):
        return
    original = Scheduler.__init__

    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        attach(self, logger)

    def report(self: Any) -> dict[str, Any]:
        sessions = getattr(self.scheduler, KEY, None)
        state = State("the scheduler is not vllm's own") if sessions is None else sessions.state
        return dataclasses.asdict(state)

    Scheduler.__init__ = initialise
    setattr(EngineCore, KEY, report)


def attach(scheduler: Any, logger: Any) -> FlatSessions:
    """Decide for one scheduler, say so, and patch it if the answer is yes."""
    import vllm

    reason = why_off(vllm.__version__, scheduler.vllm_config) or _missing(scheduler)
    sessions = FlatSessions(scheduler, logger, reason)
    setattr(scheduler, KEY, sessions)
    asked_for = (scheduler.vllm_config.additional_config or {}).get(KEY)
    if not reason:
        sessions.patch()
        logger.info("Flat sessions: on.")
    elif asked_for:
        logger.warning("Flat sessions: off, so old sessions will be slow: %s.", reason)
    else:
        logger.debug("Flat sessions: off: %s.", reason)
    return sessions


def _missing(scheduler: Any) -> str:
    for place, names in TOUCHED.items():
        found = scheduler if place == "scheduler" else getattr(scheduler, place)
        for name in names:
            if not hasattr(found, name):
                return f"vllm's {type(found).__name__} has no {name}"
    return ""


class FlatSessions:
    """The plugin at one scheduler. Every method runs in the engine core's one thread."""

    def __init__(self, scheduler: Any, logger: Any, reason: str) -> None:
        self._scheduler = scheduler
        self._logger = logger
        self._reason = reason
        self._dropped = 0
        self._lost = 0

    @property
    def state(self) -> State:
        return State(self._reason, self._dropped, self._lost)

    def patch(self) -> None:
        """Put ourselves between the scheduler and three of its methods."""
        scheduler = self._scheduler
        self._update_request_as_session = scheduler._update_request_as_session
        self._preempt_request = scheduler._preempt_request
        self._handle_blocked_waiting_request = scheduler._handle_blocked_waiting_request
        scheduler._update_request_as_session = self._updating
        scheduler._preempt_request = self._preempting
        scheduler._handle_blocked_waiting_request = self._handling

    def _updating(self, session: Any, update: Any) -> None:
        self._update_request_as_session(session, update)
        self.trim(session)

    def _preempting(self, request: Any, timestamp: float, drop_stale_output: bool = False) -> None:
        # A token that is on its way is dropped: the frontend would merge it with the error.
        drop_stale_output = drop_stale_output or hasattr(request, _TRIMMED_TO)
        self._preempt_request(request, timestamp, drop_stale_output=drop_stale_output)
        self._end_if_lost(request)

    def _handling(self, request: Any) -> bool:
        """Nothing that lacks audio gets into a step, however it came to lack it: in a batch it
        would not only be wrong itself, it would also shift the others' audio."""
        return not self._end_if_lost(request) and self._handle_blocked_waiting_request(request)

    def trim(self, session: Any) -> None:
        """Drop the features that are computed for good."""
        features = session.mm_features
        settled = session.num_computed_tokens - TAIL_TOKENS
        in_cache = self._scheduler.encoder_cache_manager.request_cached_ids
        held = in_cache.get(session.request_id, ())
        most = min(held, default=len(features))  # the encoder cache will come back to these
        count = 0
        while count < most and _end(features[count]) <= settled:
            count += 1
        if not count:
            return
        setattr(session, _TRIMMED_TO, _end(features[count - 1]))
        session.mm_features = features[count:]
        if held:
            in_cache[session.request_id] = {index - count for index in held}
        self._dropped += count

    def _end_if_lost(self, request: Any) -> bool:
        """Whether audio is gone that this request needs; then it ends with this step."""
        if request.num_computed_tokens >= getattr(request, _TRIMMED_TO, 0):
            return False
        doomed = self._scheduler.encoder_cache_mismatch_reqs
        if request.request_id not in doomed:
            doomed.add(request.request_id)
            self._lost += 1
            self._logger.warning(
                "Flat sessions: request %s was preempted and cannot go on, so it ends in an error."
                " There are more sessions than the KV cache has room for.",
                request.request_id,
            )
        return True


def _end(feature: Any) -> int:
    """The first token behind a feature."""
    return int(feature.mm_position.offset + feature.mm_position.length)
