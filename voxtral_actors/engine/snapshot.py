"""Getting a model's files from the hub into VOXTRAL_MODEL_DIR, whole or not at all.

`fetch` returns at once and without a network when the folder is complete (`modelfolder`). Else it
asks the hub for the list of files at one commit, and loads what is missing (`downloading`).

Files come over plain HTTP, one after the other, through the hub library's session: its own download
functions start a file again from nothing after a crash, and cannot be stopped on the way.

`fetch` blocks, so a server runs it in a thread: `ready` does, with the delay patch after it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # which one, it decides

from voxtral_actors.engine import atomic, modelfolder, tekken
from voxtral_actors.engine.downloading import Download, Part, Trouble
from voxtral_actors.engine.modelfolder import ModelFile, Reason, SnapshotError, local_snapshot
from voxtral_actors.engine.patience import FetchCancelled, Patience, Progress, Watch
from voxtral_actors.settings import Settings

__all__ = ["FetchCancelled", "Patience", "Progress", "SnapshotError", "fetch", "ready"]

_HUB_FAULTS = (httpx.HTTPError, httpx.InvalidURL, HFValidationError, OfflineModeIsEnabled)
_DIGEST = re.compile("sha256:[0-9a-f]{64}|git-sha1:[0-9a-f]{40}")
_BAD_RANGE = 416
_RETRIED = {408, _BAD_RANGE, 425, 500, 502, 503, 504}
_REPORT = Callable[[Progress], None]


async def ready(settings: Settings, *, progress: _REPORT, patience: Patience | None = None) -> Path:
    """The folder of the complete model, with the delay of the settings in it.

    `progress` is called in another thread. Cancelling leaves that thread behind for
    `limits.HUB_TIMEOUT_S` at most; it stops at the next byte or timeout.

    Raises:
        SnapshotError: the files cannot be had.
        TekkenError: the delay cannot be set.
    """
    stop = threading.Event()

    def work() -> Path:
        folder = fetch(settings, progress=progress, cancelled=stop.is_set, patience=patience)
        tekken.set_delay(folder, settings.transcription_delay_ms)
        return folder

    try:
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    finally:
        stop.set()


def fetch(
    settings: Settings,
    *,
    progress: _REPORT = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    full: bool = False,
    patience: Patience | None = None,
) -> Path:
    """The folder of the complete model, after getting what was missing.

    `full` hashes files that look untouched as well.

    Raises:
        SnapshotError: the files cannot be had.
        FetchCancelled: `cancelled` said so; what has come is kept.
    """
    folder = Path(settings.model_dir)
    watch = Watch(progress, cancelled, patience or Patience(), folder / modelfolder.LOCK)
    try:
        watch.begin("checking")
        if local_snapshot(settings, full=full, tick=watch.advance):
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.locked(folder / modelfolder.LOCK, watch.wait_for_lock):
            watch.holds_lock = True
            watch.begin("checking")
            # Another process may have done the work while this one waited.
            if not local_snapshot(settings, full=full, tick=watch.advance):
                hub = _Hub(settings, watch.patience.timeout_s)
                Download(settings, folder, hub, watch, full=full).run()
        return folder
    except OSError as error:
        raise modelfolder.system_error(folder, error) from error


class _Hub:
    """The model hub as a source of files: its answers, and its faults in words."""

    def __init__(self, settings: Settings, timeout_s: float) -> None:
        self._address = settings.hf_endpoint.rstrip("/")
        self._model = settings.model_id
        self._token = settings.hf_token.reveal() if settings.hf_token else None
        self._timeout_s = timeout_s

    def listing(self) -> tuple[str, dict[str, ModelFile]]:
        # False: not the token of whoever is logged in on this machine.
        hub = HfApi(endpoint=self._address, token=self._token or False)
        try:
            info = hub.model_info(self._model, files_metadata=True, timeout=self._timeout_s)
            files = [_model_file(each) for each in info.siblings or ()]
        except _HUB_FAULTS as error:
            raise self._trouble(error) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            what = f"{self._address} did not answer like a model hub: is a proxy in between?"
            raise _trouble("hub_error", what) from error
        return str(info.sha), {file.name: file for file in files}

    def load(self, part: Part, revision: str) -> None:
        try:
            self._load(part, revision)
        except _HUB_FAULTS as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code == _BAD_RANGE:
                part.restart()
            raise self._trouble(error) from error

    def _load(self, part: Part, revision: str) -> None:
        url = hf_hub_url(self._model, part.file.name, revision=revision, endpoint=self._address)
        # Compressed bytes could not be counted against the size.
        headers = {"Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
        with get_session().stream("GET", url, headers=headers, timeout=self._timeout_s) as response:
            hf_raise_for_status(response)
            start = response.headers.get("Content-Range", "bytes 0-")
            if not start.startswith(f"bytes {part.size}-"):
                part.restart()
            for piece in response.iter_bytes():
                part.add(piece)
                if part.size > part.file.size:
                    return

    def _trouble(self, error: Exception) -> Trouble:
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        match error:
            case HfHubHTTPError():
                return self._refusal(error.response)
            case HFValidationError():
                form = "it has the form owner/name"
                return _trouble("not_found", f"VOXTRAL_MODEL_ID is {self._model!r}: {form}.")
            case OfflineModeIsEnabled():
                return _trouble("no_network", "HF_HUB_OFFLINE forbids to ask the model hub.")
            case httpx.InvalidURL() | httpx.UnsupportedProtocol():
                return _trouble("no_network", f"HF_ENDPOINT is not valid: {text}.")
            case httpx.ConnectTimeout() | httpx.NetworkError() | httpx.ProxyError():
                return _trouble("no_network", f"{self._address} cannot be reached: {text}.", 0.0)
            case httpx.TimeoutException():
                quiet = f"{self._address} sent nothing for {self._timeout_s:g} s."
                return _trouble("stalled", quiet, 0.0)
            case httpx.RemoteProtocolError():
                return _trouble("truncated", f"{self._address} broke off: {text}.", 0.0)
            case _:
                what = f"{self._address} did not serve {self._model}: {text}."
                return _trouble("hub_error", what)

    def _refusal(self, response: Any) -> Trouble:
        hub, model, status = self._address, self._model, response.status_code
        gated = response.headers.get("X-Error-Code") == "GatedRepo"
        pause = _asked_pause(response.headers)
        match status:
            case 401 | 403 if gated:
                to_do = f"accept its terms at {hub}/{model} and set HF_TOKEN to a token of yours"
                return _trouble("refused", f"{model} is gated ({status}): {to_do}.")
            case 401 if self._token:
                return _trouble("refused", f"{hub} does not take this HF_TOKEN (401).")
            case 401:
                unsure = "or there is no such model: set HF_TOKEN, check VOXTRAL_MODEL_ID"
                return _trouble("refused", f"{hub} wants a token for {model} (401), {unsure}.")
            case 403:
                right = "its owner must allow it, and HF_TOKEN must be a token with that right"
                return _trouble("refused", f"{hub} refuses access to {model} (403): {right}.")
            case 404:
                what = f"{hub} has nothing at {response.request.url.path} (404)"
                return _trouble("not_found", f"{what}: check VOXTRAL_MODEL_ID.")
            case 429:
                again = f"; it asks to wait {pause:g} s" if pause else ""
                hint = "" if self._token else "; it allows more with HF_TOKEN"
                text = f"{hub} takes no more requests now (429)"
                return _trouble("rate_limited", f"{text}{again}{hint}.", pause)
            case _:
                text = f"{hub} answered {status} for {model}."
                return _trouble("hub_error", text, pause if status in _RETRIED else None)


def _trouble(reason: Reason, text: str, pause_s: float | None = None) -> Trouble:
    return Trouble(SnapshotError(reason, text), pause_s)


def _asked_pause(headers: Any) -> float:
    """How long the hub asks to wait, in seconds, by either header that it uses."""
    if re.fullmatch(r"\d{1,9}", after := headers.get("Retry-After", "").strip()):
        return float(after)
    exhausted = re.search(r";\s*r=0\s*;\s*t=(\d{1,9})", headers.get("RateLimit", ""))
    return float(exhausted[1]) if exhausted else 0.0


def _model_file(listed: Any) -> ModelFile:
    """A file as the hub lists it: large ones with SHA-256, small ones with git's hash."""
    size, digest = (
        (listed.lfs.size, f"sha256:{listed.lfs.sha256}")
        if listed.lfs
        else (listed.size, f"git-sha1:{listed.blob_id}")
    )
    if not _DIGEST.fullmatch(digest):
        raise ValueError(digest)
    return ModelFile(str(listed.rfilename), int(size), digest)
