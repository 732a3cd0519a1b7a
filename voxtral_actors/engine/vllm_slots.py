"""How many streams one copy of the model takes, the spare ones for those that roll beside them.

vLLM takes any number of requests and lets those wait that do not fit; paused sessions that wait for
each other's memory wait for ever. So what is counted is what surely fits, each stream at its full
length, and one stream more is refused.
"""

from __future__ import annotations

import structlog

from voxtral_actors.engine.port import with_spare

log = structlog.get_logger(__name__)


def of_a_copy(*, asked: int, fit_kv_cache: int, fit_encoder: int) -> tuple[int, int]:
    """The slots and the spare slots; the log says which limit gives them."""
    slots, spare = with_spare(asked, min(fit_kv_cache, fit_encoder))
    figures = {
        "slots": slots,
        "spare": spare,
        "max_num_seqs": asked,
        "fit_kv_cache": fit_kv_cache,
        "fit_encoder_cache": fit_encoder,
    }
    if slots == asked:
        log.info("vllm.slots", **figures)
    else:
        hint = "a smaller VLLM_MAX_MODEL_LEN makes room for more streams"
        log.warning("vllm.fewer_slots", hint=hint, **figures)
    return slots, spare
