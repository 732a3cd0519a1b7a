"""Voxtral Realtime on vLLM: its `AsyncLLM` in the loop thread, one streaming request a stream.

It does for a stream what vLLM's own realtime server does for a session, on a shorter way: a frame
is made a request here (`vllm_request`) and sent past what vLLM has in front of its engine
(`vllm_line`), and tokens become text here (`vllm_text`).

vLLM is imported and started in a thread of its own, so the server answers probes meanwhile.

Slots. `vllm_slots` counts what surely fits. With several copies of the model the engine also
chooses the copy, so that none gets more than its share.

Length. A stream that would outgrow VLLM_MAX_MODEL_LEN ends in `Failed`, before vLLM would end it
with a text that looks complete.

Death. vLLM's client knows when an engine process has died. A frame that is in flight for
`limits.VLLM_STALL_S` is a death as well.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from voxtral_actors import limits
from voxtral_actors.engine import vllm_args, vllm_library, vllm_plugin, vllm_slots
from voxtral_actors.engine.hosted import AudioSource, HostedBackend
from voxtral_actors.engine.port import (
    EngineEvent,
    EngineInfo,
    Failed,
    Finished,
    Progress,
    StreamSpec,
    Text,
)
from voxtral_actors.engine.registry import EngineSetupError
from voxtral_actors.engine.vllm_figures import Figures
from voxtral_actors.engine.vllm_frames import FrameCutter
from voxtral_actors.engine.vllm_processes import Brood, Worker
from voxtral_actors.engine.vllm_session import Session
from voxtral_actors.engine.vllm_text import TokenText
from voxtral_actors.settings import Settings

if TYPE_CHECKING:  # it needs the hub's library, which comes with vllm
    from voxtral_actors.engine import snapshot

log = structlog.get_logger(__name__)


class EngineStalledError(Exception):
    """A frame is in flight and vLLM says nothing any more."""


class EngineProcessDiedError(Exception):
    """A process of vLLM has died."""


def create(settings: Settings) -> VllmBackend:
    """Entry point `vllm` of the engines.

    Raises:
        EngineSetupError: vLLM is not installed, or the settings cannot work with it.
    """
    # Found by what can be imported: its CPU build has another distribution name.
    if find_spec("vllm") is None:
        raise EngineSetupError("vllm is not installed: pip install 'voxtral-actors[vllm]'")
    vllm_args.check(settings)
    return VllmBackend(settings)


class VllmBackend(HostedBackend):
    """The engine, after its model's files: each life fetches what is missing of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._vllm = VllmEngine(settings)
        super().__init__(self._vllm)

    async def run(self, *, task_status: trio.TaskStatus[EngineInfo]) -> None:
        from voxtral_actors.engine import snapshot

        self._vllm.folder = await snapshot.ready(self._settings, progress=_FetchLog())
        await super().run(task_status=task_status)

    def figures(self) -> dict[str, float]:
        return self._vllm.figures.totals()


class VllmEngine:
    """`hosted.AsyncioEngine` over vLLM; one life."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(settings.model_dir)
        self.figures = Figures()
        self._loaded: vllm_library.Loaded | None = None
        self._brood: Brood | None = None
        self._loading: Worker[vllm_library.Loaded] | None = None
        self._dead, self._streams = False, 0
        self._open: dict[str, Session] = {}
        self._load: Counter[int] = Counter()  # copy of the model -> its open streams

    @property
    def vllm(self) -> vllm_library.Loaded:
        """From the end of `start` to `stop`, which is when there are streams."""
        assert self._loaded is not None  # noqa: S101 - a bug of ours
        return self._loaded

    # --- Life --------------------------------------------------------------------------------

    async def start(self) -> EngineInfo:
        self._brood = Brood()
        await Worker(vllm_library.import_vllm, "vllm-import").result
        log.info("vllm.starting", model=str(self.folder))
        self._loading = Worker(
            lambda: vllm_library.load(self.settings, self.folder, self.figures), "vllm-start"
        )
        self._loaded = await self._loading.result
        try:
            async with asyncio.timeout(limits.VLLM_STALL_S):
                fit_kv_cache = await vllm_library.greet_workers(self.vllm)
                await self._tune()
        except TimeoutError:
            raise EngineStalledError("no answer to a first question") from None
        self._brood.look()
        capacity, layout = self.vllm.capacity, self.vllm.layout
        self._load.update(dict.fromkeys(range(capacity.copies), 0))
        slots, spare = vllm_slots.of_a_copy(
            asked=self.settings.max_num_seqs,
            fit_kv_cache=fit_kv_cache,
            fit_encoder=capacity.by_encoder_cache,
        )
        return EngineInfo(
            name="vllm",
            model=self.settings.model_name,
            slots=capacity.copies * slots,
            spare=capacity.copies * spare,
            transcription_delay_ms=layout.delay_ms,
            timing=layout.timing(capacity.max_tokens),
            rolls=True,
        )

    async def _tune(self) -> None:
        """Keep steps short: with age, by the plugin, and with company, by the workers. What came of
        it is logged and kept."""
        states = await vllm_plugin.ask(self.vllm.llm)
        why_aged = "; ".join(sorted({state.why_off for state in states if state.why_off}))
        wanted = self.settings.batch_audio
        why_alone = await vllm_library.batch_audio(self.vllm) if wanted else "it is switched off"
        aged = log.warning if why_aged and self.settings.flat_sessions else log.info
        aged("vllm.flat_sessions", on=not why_aged, why_off=why_aged or None)
        alone = log.warning if why_alone and wanted else log.info
        alone("vllm.batched_audio", on=not why_alone, why_off=why_alone or None)
        self.figures.flat_sessions, self.figures.batched_audio = not why_aged, not why_alone

    async def wait_dead(self) -> None:
        try:
            while True:
                await asyncio.sleep(limits.VLLM_WATCH_S)
                self._look()
        except (EngineProcessDiedError, EngineStalledError) as error:
            self._dead = True
            log.error("vllm.dead", why=str(error))  # noqa: TRY400 - of a process, not of code
            raise

    def _look(self) -> None:
        if self.vllm.llm.errored:
            raise EngineProcessDiedError("a process of vLLM has died")
        oldest = asyncio.get_running_loop().time() - limits.VLLM_STALL_S
        for session in self._open.values():
            if session.sent_at is not None and session.sent_at < oldest:
                raise EngineStalledError(f"no answer to a frame for {limits.VLLM_STALL_S:g} s")

    async def stop(self) -> None:
        brood, loading = self._brood, self._loading
        if brood is None or loading is None:
            return
        vllm, self._loaded = self._loaded, None
        # There is nothing to be said to a dead engine, and until it is gone it passes for ready.
        polite = not self._dead

        def shut_down() -> None:
            try:
                if not polite:
                    brood.kill()
                if vllm is not None:
                    vllm_library.shut_down(vllm.llm)
            finally:
                # Of a start that was cancelled: it cannot be stopped but by what it starts.
                brood.kill_until_over(loading.thread)

        stopping = Worker(shut_down, "vllm-stop")
        bounded = asyncio.wait({stopping.result}, timeout=limits.VLLM_STOP_S + limits.VLLM_KILL_S)
        over = asyncio.ensure_future(bounded)
        try:
            await asyncio.shield(over)
        except asyncio.CancelledError:
            await over  # noqa: ASYNC102 - asyncio; the processes are to be gone whoever still wants to know
            raise

    # --- Streams -----------------------------------------------------------------------------

    async def transcribe(
        self, spec: StreamSpec, audio: AudioSource, emit: Callable[[EngineEvent], None]
    ) -> None:
        self._streams += 1
        request_id = f"stream-{self._streams}"
        rank = min(self._load, key=self._load.__getitem__)
        self._load[rank] += 1
        session = Session(self.vllm.line, request_id, rank)
        self._open[request_id] = session
        log.debug("vllm.stream", request=request_id, stream=spec.label, copy=rank)
        try:
            emit(await self._hear(session, request_id, audio, emit))
        except Exception:  # of a dead engine vLLM may raise anything
            if not self.vllm.llm.errored:
                raise
            # The engine's death is the end of all streams: `wait_dead` tells of it, and then this
            # task is cancelled.
            await asyncio.Event().wait()
        finally:
            try:
                await session.close()  # noqa: ASYNC102 - asyncio, and bounded in there
            finally:
                del self._open[request_id]
                self._load[rank] -= 1

    async def _hear(
        self,
        session: Session,
        request_id: str,
        audio: AudioSource,
        emit: Callable[[EngineEvent], None],
    ) -> Finished | Failed:
        """Serve a stream to its end, and return that."""
        vllm = self.vllm
        cutter, text = FrameCutter(vllm.layout), TokenText(vllm.piece)
        tokens = list(vllm.layout.prefix)
        frames = length = consumed = 0
        complete = False
        while not complete:
            chunk = await audio.get()
            if chunk is None:
                complete = True
                cutter.finish()
            else:
                cutter.feed(chunk)
            for frame in cutter.frames():
                if length + frame.tokens >= vllm.capacity.max_tokens:
                    if complete and consumed == cutter.fed:
                        break  # what is left is padding
                    return self._too_long()
                hash_ = f"{request_id}.{frames}"
                token = await session.step(vllm.make_frame(hash_, tokens, frame.pcm))
                frames += 1
                length += frame.tokens
                self.figures.frames += 1
                tokens = [token]
                consumed = frame.consumed
                said = text.feed(token)
                emit(Text(said, consumed) if said else Progress(consumed))
        await session.finish()
        return Finished(cutter.fed, prompt_tokens=length, completion_tokens=frames)

    def _too_long(self) -> Failed:
        seconds = self.vllm.capacity.max_tokens * self.vllm.layout.step / limits.SAMPLE_RATE
        return Failed(
            "max_model_len",
            f"the utterance is longer than {seconds:.0f} s, which VLLM_MAX_MODEL_LEN allows",
        )


class _FetchLog:
    """Progress of the model's download as lines of the log; called in the thread that fetches."""

    def __init__(self) -> None:
        self._doing, self._next = "", 0.0

    def __call__(self, progress: snapshot.Progress) -> None:
        now = time.monotonic()
        if progress.total and (progress.doing != self._doing or now >= self._next):
            self._doing, self._next = progress.doing, now + limits.FETCH_LINE_S
            done = 100 * progress.done // progress.total
            what = {"doing": progress.doing, "file": progress.file, "note": progress.note}
            log.info("model.files", percent=done, **what)
