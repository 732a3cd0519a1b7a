"""What is called in vLLM, and its types; `vllm_line` has what is between its client and its engine.

`load` builds the engine client. What it returns knows how the model wants its audio, what its
tokens are in bytes, and how requests get to the engine and answers back.

vLLM has no public interface at this depth. The version is pinned, names that are not there keep the
engine from starting, and tests compare with vLLM's own way of doing it.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import attrs

from voxtral_actors import limits
from voxtral_actors.engine import (
    vllm_args,
    vllm_environ,
    vllm_line,
    vllm_plugin,
    vllm_request,
)
from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.engine.vllm_figures import Figures
from voxtral_actors.engine.vllm_frames import Layout
from voxtral_actors.settings import Settings


@attrs.frozen
class Capacity:
    """What one copy of the model has room for; streams of the full length."""

    copies: int
    """Copies of the model: the data parallel size."""
    max_tokens: int
    """The length of a stream, in tokens."""
    by_encoder_cache: int
    """Streams whose audio fits that vLLM keeps between two frames."""


@attrs.frozen
class Loaded:
    """A running vLLM, and what to know of its model."""

    llm: Any = attrs.field(repr=False)
    """An `AsyncLLM`."""
    layout: Layout
    piece: Callable[[int], bytes] = attrs.field(repr=False)
    """The bytes of a token."""
    line: vllm_line.Line = attrs.field(repr=False)
    make_frame: vllm_request.MakeFrame = attrs.field(repr=False)
    capacity: Capacity


def import_vllm() -> None:
    """The first import of vllm. Blocks for seconds, and is called in a thread of its own.

    Not by `load`: an error that some module keeps from its import keeps the frames above it as
    well, with all that they come to hold.
    """
    vllm_environ.prepare()
    # A client that is in a cycle is freed by the collector, and its finaliser needs its modules.
    atexit.unregister(gc.collect)
    atexit.register(gc.collect)
    for module in ("vllm.engine.arg_utils", "vllm.v1.engine.async_llm"):
        import_module(module)


def load(settings: Settings, folder: Path, figures: Figures) -> Loaded:
    """Start vLLM for the model in `folder`, after `import_vllm`. Blocks for minutes, likewise.

    Raises:
        EngineSetupError: about the settings, or the model.
        Exception: whatever vLLM has to say; a ValueError is about the settings.
    """
    import torch
    from vllm.config import LoggingConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    # Not in this process, where its lines go our way; it is put right for those of vLLM below.
    lines = LoggingConfig(
        configure_logging=False,
        log_level=settings.log_level.upper(),
        formatter=settings.log_format,
    )
    # vLLM's processes inherit this. Ctrl-C reaches every process in a terminal, and the server
    # needs its engine for the drain that follows. (The start of Python's tracker would undo it.)
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    given = vllm_args.engine_args(settings, folder)
    if unknown := given.keys() - AsyncEngineArgs.__dataclass_fields__.keys():
        names = ", ".join(sorted(unknown))
        raise EngineSetupError(f"VLLM_ENGINE_ARGS has what vLLM does not know: {names}")
    args = AsyncEngineArgs(**given, logging_config=lines)
    config = args.create_engine_config(UsageContext.ENGINE_CONTEXT)
    config.logging_config.configure_logging = True
    # What is computed here are the samples of a frame. Of the long first one torch would make two
    # threads' work, and its threads spin for milliseconds when they are done.
    torch.set_num_threads(1)
    llm = AsyncLLM.from_vllm_config(
        config,
        stat_loggers=[_figures_logger(figures)],
        disable_log_stats=args.disable_log_stats,
        enable_log_requests=args.enable_log_requests,
    )
    try:
        _keep_only_our_figures(llm)
        return _learn(llm, figures)
    except BaseException:  # whatever it is, its processes must not outlive it
        shut_down(llm)
        raise


def shut_down(llm: Any) -> None:
    """End a client and its processes. Blocks, and is called outside of the loop."""
    # Its task would log the end that is wanted as an error.
    with suppress(RuntimeError):  # the loop is closed
        if (handler := llm.output_handler) is not None:
            handler.get_loop().call_soon_threadsafe(handler.cancel)
    llm.shutdown(timeout=limits.VLLM_STOP_S)


def _learn(llm: Any, figures: Figures) -> Loaded:
    if missing := vllm_line.missing(llm):
        raise _unexpected(f"it has no {', '.join(missing)}")
    theirs = logging.getLogger("vllm")
    theirs.handlers.clear()
    theirs.propagate = True
    config = llm.vllm_config
    layout, piece = tokenizer_facts(llm.get_tokenizer())
    make_frame = vllm_request.frame_maker(config.model_config.dtype)
    pattern = vllm_request.pattern(llm, _sampling_params())
    encoder = vllm_request.Encoder(llm.engine_core.encoder, pattern)
    if not encoder.agrees():
        raise _unexpected("it makes other requests of a frame")
    return Loaded(
        llm=llm,
        layout=layout,
        piece=piece,
        line=vllm_line.Line(llm, encoder, figures),
        make_frame=make_frame,
        capacity=Capacity(
            copies=config.parallel_config.data_parallel_size,
            max_tokens=config.model_config.max_model_len,
            # A paused session keeps the encoder's output of its last frame; the first is long.
            by_encoder_cache=llm.input_processor.mm_encoder_cache_size // len(layout.prefix),
        ),
    )


def _unexpected(why: str) -> EngineSetupError:
    import vllm

    tested = ", ".join(vllm_plugin.TESTED_VERSIONS)
    return EngineSetupError(f"vllm {vllm.__version__} is not as {tested} is: {why}")


async def greet_workers(vllm: Loaded) -> int:
    """Tell the workers who they work for, which proves that they answer.

    Returns how many streams of the full length have room in the KV cache of one copy.
    """
    vllm.line.attach()
    await vllm.llm.collective_rpc("voxtral_follow", args=(os.getpid(),))
    # The first frame is the longest; the next may be on its way before its blocks are given back.
    in_flight = 2 * len(vllm.layout.prefix)
    return int(min(await vllm.llm.collective_rpc("voxtral_streams", args=(in_flight,))))


async def batch_audio(vllm: Loaded) -> str:
    """Have the workers take the audio of all streams of a step at once (`vllm_batch`).

    Returns why they do not; empty if all do.
    """
    lengths = list(vllm.layout.frame_lengths)
    answers = await vllm.llm.collective_rpc("voxtral_batch", args=(lengths,))
    return "; ".join(sorted({answer for answer in answers if answer}))


def _keep_only_our_figures(llm: Any) -> None:
    """vLLM always adds a logger for a Prometheus registry of its own, at each step; nobody reads
    that here."""
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    manager = llm.logger_manager
    kept = [one for one in manager.stat_loggers if not isinstance(one, PrometheusStatLogger)]
    manager.stat_loggers = kept


def _figures_logger(figures: Figures) -> Any:
    from vllm.v1.metrics.loggers import StatLoggerBase

    class FiguresLogger(StatLoggerBase):  # type: ignore[misc]  # vllm has no types for us
        def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
            self._rank = engine_index

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
            preempted = iteration_stats.num_preempted_reqs if iteration_stats is not None else 0
            figures.record(self._rank, scheduler_stats, preempted)

        def log_engine_initialized(self) -> None:
            pass

    return FiguresLogger


def _sampling_params() -> Any:
    """One token a frame, the likeliest, and as a number: `vllm_text` makes the text."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        output_kind=RequestOutputKind.DELTA,
        detokenize=False,
        skip_clone=True,
    )


def tokenizer_facts(tokenizer: Any) -> tuple[Layout, Callable[[int], bytes]]:
    """How audio is cut for the model of this tokenizer, and the bytes of its tokens.

    Raises:
        EngineSetupError: it is not that of a Voxtral Realtime.
    """
    from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy

    encoder = getattr(getattr(tokenizer, "instruct", None), "audio_encoder", None)
    config = getattr(encoder, "audio_config", None)
    if encoder is None or config is None or not config.is_streaming:
        raise EngineSetupError(
            "the model in VOXTRAL_MODEL_DIR is no Voxtral Realtime: its tokenizer has no streaming"
            " audio (VLLM_TOKENIZER_MODE must be mistral)"
        )
    if config.sampling_rate != limits.SAMPLE_RATE:
        raise EngineSetupError(f"the model wants audio at {config.sampling_rate} Hz")
    left, right = encoder.get_padding_audio()

    def samples(ms: float) -> int:
        return round(limits.SAMPLE_RATE * ms / 1000)

    layout = Layout(
        step=config.raw_audio_length_per_tok,
        look_back=samples(config.streaming_look_back_ms),
        look_ahead=samples(config.streaming_look_ahead_ms),
        prefix=tuple(tokenizer.instruct.start() + encoder.encode_streaming_tokens()),
        left_pad=len(left.audio_array),
        right_pad=len(right.audio_array),
        delay_ms=round(config.transcription_delay_ms),
    )
    tekken, known = tokenizer.tokenizer, tokenizer.tokenizer.n_words

    @cache
    def piece(token: int) -> bytes:
        # A model may have more tokens than the vocabulary; those say nothing.
        if token >= known:
            return b""
        return bytes(tekken.id_to_byte_piece(token, SpecialTokenPolicy.IGNORE))

    return layout, piece
