"""The folder of a model's files, without a network: which files, and whether they are all right.

A folder is complete when it holds a manifest, `.snapshot.json`, that fits the settings, and every
file that the manifest lists, with its size and hash. The manifest is written last, so a download
that was cut off has none. Sizes and times are compared at each start, which takes no time; a file
whose time is another one is hashed, and `full` hashes them all.

The hashes are those of the model hub: SHA-256 of a large file, git's SHA-1 of a small one. The hash
of `tekken.json` is that of the published file, wherever the delay patch has put it.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import attrs

from voxtral_actors.engine import atomic, tekken
from voxtral_actors.settings import Settings

MANIFEST = ".snapshot.json"
LOCK = ".snapshot.lock"
"""Held by whoever changes the folder."""
LOCAL_REVISION = "local"
"""Stands for the hub's commit where `adopt` took the files as they are."""

_PIECE = 2**20
_VERSION = 1

Reason: TypeAlias = Literal[
    "no_network", "stalled", "truncated", "refused", "not_found", "rate_limited", "hub_error",
    "wrong_hash", "incomplete", "not_this_model", "disk_full", "read_only", "unusable", "busy",
]  # fmt: skip
"""`refused`: the token or the licence. `unusable`: the folder, for a reason of the system."""

Tick: TypeAlias = Callable[[int], None]
"""Told how many more bytes were read; it may raise to stop the reading."""


class SnapshotError(Exception):
    """The model's files cannot be had. The message is one line and says what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


@attrs.frozen
class ModelFile:
    """A file as it should be. `digest` is `sha256:…` or `git-sha1:…`."""

    name: str
    size: int
    digest: str

    def hasher(self) -> Any:
        """A `hashlib` object that has seen what comes before the file's first byte."""
        if self.digest.startswith("sha256:"):
            return hashlib.sha256()
        header = b"blob %d\0" % self.size
        return hashlib.sha1(header, usedforsecurity=False)

    def is_hash(self, hasher: Any) -> bool:
        return bool(hasher.hexdigest() == self.digest.partition(":")[2])

    def is_content_of(self, path: Path, tick: Tick) -> bool:
        """Whether the file at `path` is this one, byte by byte."""
        try:
            if path.stat().st_size != self.size:
                return False
            hasher = self.hasher()
            with path.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    hasher.update(piece)
                    tick(len(piece))
        except FileNotFoundError:
            return False
        return self.is_hash(hasher)


@attrs.frozen
class Manifest:
    """What a complete folder holds."""

    model: str
    revision: str
    formats: tuple[str, ...]
    """For which settings the files were chosen; see `formats`."""
    files: tuple[tuple[ModelFile, int], ...]
    """Each with the modification time, in nanoseconds, at which it was seen to be right."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The folder's manifest; None if there is none, or one that makes no sense."""
        try:
            content = json.loads((folder / MANIFEST).read_bytes())
            if content["version"] != _VERSION:
                return None
            return cls(
                model=content["model"],
                revision=content["revision"],
                formats=tuple(content["formats"]),
                files=tuple(
                    (ModelFile(str(each["name"]), int(each["size"]), str(each["digest"])),
                     int(each["mtime_ns"]))
                    for each in content["files"]
                ),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, folder: Path) -> None:
        files = [attrs.asdict(file) | {"mtime_ns": mtime} for file, mtime in self.files]
        content = attrs.asdict(self) | {"version": _VERSION, "files": files}
        atomic.write(folder / MANIFEST, json.dumps(content, indent=1).encode())


def formats(settings: Settings) -> tuple[str, ...]:
    """The settings that decide which files are needed."""
    return (settings.config_format, settings.tokenizer_mode, settings.load_format)


def choose(names: Iterable[str], settings: Settings) -> list[str]:
    """Of a model's files, those that the engine needs with these settings.

    Raises:
        SnapshotError: one is missing that it cannot do without.
    """
    names = [name for name in names if "/" not in name and "\\" not in name]
    wanted = ["params.json", "config.json", "generation_config.json", tekken.FILE]
    required = [
        tekken.FILE,
        "params.json" if settings.config_format == "mistral" else "config.json",
    ]
    if settings.config_format != "mistral":
        wanted += ["processor_config.json", "preprocessor_config.json"]
    if settings.tokenizer_mode != "mistral":
        wanted += ["tokenizer*.json", "tokenizer.model*", "special_tokens_map.json"]
    chosen = _matching(names, wanted)
    if missing := [name for name in required if name not in chosen]:
        raise _not_a_model(settings, " and ".join(missing))
    weights = choose_weights(names, settings.load_format)
    if not weights and settings.load_format != "dummy":
        raise _not_a_model(settings, f"weights for VLLM_LOAD_FORMAT={settings.load_format}")
    return sorted(chosen | weights)


def choose_weights(names: Collection[str], load_format: str) -> set[str]:
    """The files with weights, and their index, that the engine reads in this format.

    The engine looks for them by the same patterns, so one that is left over is read as well.
    """
    safetensors = ["*.safetensors", "*.safetensors.index.json"]
    consolidated = _matching(names, [f"consolidated{pattern}" for pattern in safetensors])
    if load_format == "mistral" or (load_format == "auto" and consolidated):
        return consolidated
    patterns = {"dummy": [], "pt": ["*.pt"], "npcache": ["*.bin"]}
    return _matching(names, patterns.get(load_format, safetensors)) - consolidated


def _matching(names: Iterable[str], patterns: list[str]) -> set[str]:
    return {name for name in names for pattern in patterns if fnmatchcase(name, pattern)}


def _not_a_model(settings: Settings, missing: str) -> SnapshotError:
    return SnapshotError(
        "not_this_model",
        f"{settings.model_id} has no {missing}: check VOXTRAL_MODEL_ID and the VLLM_…_FORMAT"
        " settings.",
    )


def place(folder: Path, name: str) -> Path:
    """Where the bytes are that the hash of this file is of."""
    return tekken.published(folder) if name == tekken.FILE else folder / name


def local_snapshot(
    settings: Settings, *, full: bool = False, tick: Tick = lambda _: None
) -> Path | None:
    """The model's folder if it is complete, else None. Writes nothing but newer times."""
    folder = Path(settings.model_dir)
    manifest = Manifest.read(folder)
    if (
        manifest is None
        or manifest.model != settings.model_id
        or manifest.formats != formats(settings)
    ):
        return None
    times = []
    for file, mtime in manifest.files:
        now = check(folder, file, None if full else mtime, tick)
        if now is None:
            return None
        times.append(now)
    if times != [mtime for _, mtime in manifest.files]:
        files = tuple((file, now) for (file, _), now in zip(manifest.files, times, strict=True))
        # Another process writes it, or nobody can: then it is hashed again next time.
        with suppress(OSError, SnapshotError), atomic.locked(folder / LOCK, partial(_busy, folder)):
            attrs.evolve(manifest, files=files).write(folder)
    return folder


def _busy(folder: Path) -> None:
    raise SnapshotError("busy", f"another process holds {folder / LOCK}: let that one finish.")


def check(folder: Path, file: ModelFile, mtime: int | None, tick: Tick) -> int | None:
    """The modification time of a file that is right, else None.

    It is hashed unless its time is the given one.
    """
    path = place(folder, file.name)
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    same = status.st_size == file.size and status.st_mtime_ns == mtime
    return status.st_mtime_ns if same or file.is_content_of(path, tick) else None


def adopt(settings: Settings, *, tick: Tick = lambda _: None) -> Path:
    """Take the files in the folder as they are, as `settings.model_id`: a model of one's own.

    Raises:
        SnapshotError: they are no model, or the manifest cannot be written.
    """
    folder = Path(settings.model_dir)
    try:
        with atomic.locked(folder / LOCK, partial(_busy, folder)):
            names = [path.name for path in folder.iterdir() if path.is_file()]
            files = tuple(_as_it_is(folder, name, tick) for name in choose(names, settings))
            Manifest(settings.model_id, LOCAL_REVISION, formats(settings), files).write(folder)
    except OSError as error:
        raise system_error(folder, error) from error
    return folder


def _as_it_is(folder: Path, name: str, tick: Tick) -> tuple[ModelFile, int]:
    path = place(folder, name)
    status = path.stat()
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as content:
        while piece := content.read(_PIECE):
            hasher.update(piece)
            tick(len(piece))
    return ModelFile(name, status.st_size, f"sha256:{hasher.hexdigest()}"), status.st_mtime_ns


def system_error(folder: Path, error: OSError) -> SnapshotError:
    """What the system said of the folder, in words."""
    why = f"{error.filename or folder}: {error.strerror or error}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return SnapshotError("disk_full", f"the disk of VOXTRAL_MODEL_DIR is full ({why}).")
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return SnapshotError("read_only", f"VOXTRAL_MODEL_DIR cannot be written ({why}).")
        case _:
            return SnapshotError("unusable", f"VOXTRAL_MODEL_DIR cannot be used ({why}).")
