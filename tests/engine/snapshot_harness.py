"""What the tests of fetching share: a small model, a hub that has it, and a look at the folder."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.engine.hub import MODEL, Hub
from voxtral_actors.engine import modelfolder
from voxtral_actors.engine.modelfolder import SnapshotError
from voxtral_actors.engine.patience import Patience
from voxtral_actors.engine.snapshot import fetch
from voxtral_actors.settings import Settings, load

WEIGHTS = "consolidated.safetensors"
TEKKEN = json.dumps(
    {"vocab": [], "audio": {"frame_rate": 12.5, "transcription_delay_ms": 480}}
).encode()
FILES = {
    "README.md": b"# Not needed",
    "params.json": b'{"dim": 8}',
    "config.json": b"{}",
    "tekken.json": TEKKEN,
    WEIGHTS: random.Random(1).randbytes(300_000),
    "model.safetensors": b"the same weights in another format",
}
LARGE = {WEIGHTS, "tekken.json", "model.safetensors"}
NEEDED = {"params.json", "config.json", "tekken.json", WEIGHTS}
HASTY = Patience(timeout_s=1.0, attempts=3, first_pause_s=0.01, max_pause_s=2, lock_s=1)
NEEDED_FILES = {name: FILES[name] for name in NEEDED}


def made(hub: Hub, tmp_path: Path, **more: str) -> Settings:
    return load(environment(hub, tmp_path) | more, serving=False)


def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.address,
        "VOXTRAL_MODEL_ID": MODEL,
        "VOXTRAL_MODEL_DIR": str(tmp_path / "model"),
    }


def fetched(settings: Settings) -> Path:
    return fetch(settings, patience=HASTY)


def held(folder: Path) -> dict[str, bytes]:
    """The files of the folder that are no business of the fetcher alone."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")}


def failure(settings: Settings) -> SnapshotError:
    """The error of a fetch that must fail, on one line and with no manifest left."""
    with pytest.raises(SnapshotError) as caught:
        fetched(settings)
    assert "\n" not in str(caught.value)
    assert not (Path(settings.model_dir) / modelfolder.MANIFEST).exists()
    return caught.value
