"""Filling a model's folder from a source of files, such as the hub. The lock is held all the while.

Each missing file grows in a hidden part file and gets its name when its hash is right; the manifest
comes last. So whatever stops this, the next run goes on at the byte where it stopped.
"""

from __future__ import annotations

import shutil
from io import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import attrs

from voxtral_actors import limits
from voxtral_actors.engine import atomic, modelfolder, tekken
from voxtral_actors.engine.modelfolder import ModelFile, SnapshotError
from voxtral_actors.engine.patience import Watch
from voxtral_actors.settings import Settings


class Trouble(Exception):
    """A request failed. `pause_s` is the least pause before another one; None: it is no use."""

    def __init__(self, fault: SnapshotError, pause_s: float | None) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.pause_s = pause_s


@attrs.define
class Part:
    """A file on its way: the bytes that are on the disk, and their hash."""

    file: ModelFile
    out: BinaryIO
    watch: Watch
    size: int = 0
    hasher: Any = None

    def take_up(self) -> None:
        """Go on from what an earlier attempt left."""
        self.hasher = self.file.hasher()
        if self.out.seek(0, SEEK_END) > self.file.size:
            self.out.truncate(0)
        self.out.seek(0)
        while piece := self.out.read(2**20):
            self._count(piece)

    def add(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            rest = rest[self.out.write(rest) :]
        self._count(piece)

    def restart(self) -> None:
        self.out.truncate(0)
        self.watch.advance(-self.size)
        self.size, self.hasher = 0, self.file.hasher()

    def _count(self, piece: bytes) -> None:
        self.hasher.update(piece)
        self.size += len(piece)
        self.watch.advance(len(piece))


class Source(Protocol):
    """Where the files come from."""

    def listing(self) -> tuple[str, dict[str, ModelFile]]:
        """The revision that is there now, and its files by name.

        Raises:
            Trouble: that cannot be told now.
        """

    def load(self, part: Part, revision: str) -> None:
        """One attempt to add what the part lacks; it may add less, and more if the file is wrong.

        Raises:
            Trouble: it failed; what was added is good.
        """


class Download:
    """One run of it."""

    def __init__(
        self, settings: Settings, folder: Path, source: Source, watch: Watch, *, full: bool
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._source = source
        self._watch = watch
        manifest = modelfolder.Manifest.read(folder)
        self._known = dict(manifest.files) if manifest and not full else {}
        self._ours = {file.name for file, _ in manifest.files} if manifest else set()

    def run(self) -> None:
        """Fill the folder.

        Raises:
            SnapshotError, OSError, FetchCancelled: it is not complete.
        """
        revision, listed = self._list()
        wanted = [listed[name] for name in modelfolder.choose(listed, self._settings)]
        self._clear_away({file.name for file in wanted})
        self._watch.begin("checking")
        missing = [file for file in wanted if not self._is_there(file)]
        self._check_room(missing)
        if missing:
            self._watch.begin("downloading", sum(file.size for file in missing))
        for file in sorted(missing, key=lambda file: file.size):
            self._watch.begin_file(file.name)
            self._get(file, revision)
        times = [modelfolder.place(self._folder, file.name).stat().st_mtime_ns for file in wanted]
        modelfolder.Manifest(
            self._settings.model_id,
            revision,
            modelfolder.formats(self._settings),
            tuple(zip(wanted, times, strict=True)),
        ).write(self._folder)
        for left in self._folder.glob(".*.part"):
            left.unlink(missing_ok=True)

    def _list(self) -> tuple[str, dict[str, ModelFile]]:
        self._watch.begin("listing")
        failures = 0
        while True:
            try:
                return self._source.listing()
            except Trouble as trouble:
                failures += 1
                try:
                    self._watch.pause(trouble.fault, trouble.pause_s, failures)
                except SnapshotError as fault:
                    raise self._unlisted(fault) from trouble

    def _unlisted(self, fault: SnapshotError) -> SnapshotError:
        held = [p for p in self._folder.iterdir() if p.suffix == ".part" or p.name[0] != "."]
        if fault.reason not in {"no_network", "stalled"} or not held:
            return fault
        return SnapshotError(
            "incomplete", f"{self._folder} holds only a part of the model; {fault}"
        )

    def _clear_away(self, wanted: set[str]) -> None:
        """Weights of another model beside the wanted ones would be loaded with them."""
        names = {path.name for path in self._folder.iterdir() if path.is_file()}
        strange = modelfolder.choose_weights(names, self._settings.load_format) - wanted
        if foreign := sorted(strange - self._ours):
            raise SnapshotError(
                "not_this_model",
                f"{self._folder} also holds {', '.join(foreign)}, which the engine would load: move"
                f" that elsewhere, or give {self._settings.model_id} another VOXTRAL_MODEL_DIR.",
            )
        for name in strange:
            (self._folder / name).unlink(missing_ok=True)

    def _is_there(self, file: ModelFile) -> bool:
        tick = self._watch.advance
        if modelfolder.check(self._folder, file, self._known.get(file), tick) is not None:
            return True
        if file.name == tekken.FILE and file.is_content_of(self._folder / tekken.FILE, tick):
            # Newly fetched, and stopped before the old original was removed.
            (self._folder / tekken.ORIGINAL).unlink(missing_ok=True)
            return True
        return False

    def _check_room(self, missing: list[ModelFile]) -> None:
        parts = [self._part(file) for file in missing]
        here = sum(part.stat().st_size for part in parts if part.exists())
        need = sum(file.size for file in missing) - here + limits.SNAPSHOT_SPARE_BYTES
        free = shutil.disk_usage(self._folder).free
        if missing and free < need:
            what = f"{need / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
            raise SnapshotError("disk_full", f"{self._folder} is on too full a disk: {what}.")

    def _part(self, file: ModelFile) -> Path:
        # With the hash in its name a part never goes on with the bytes of another version.
        return self._folder / f".{file.name}.{file.digest[-12:]}.part"

    def _get(self, file: ModelFile, revision: str) -> None:
        path = self._part(file)
        # A wrong hash may be a part that a power loss damaged, so there is a second time.
        if not self._fill(path, file, revision) and not self._fill(path, file, revision):
            what = f"{file.name} came twice with other bytes than the hub lists for it"
            raise SnapshotError("wrong_hash", f"{what}: is a proxy or mirror in between?")
        path.replace(self._folder / file.name)
        if file.name == tekken.FILE:
            (self._folder / tekken.ORIGINAL).unlink(missing_ok=True)
        atomic.sync(self._folder)

    def _fill(self, path: Path, file: ModelFile, revision: str) -> bool:
        """Load what the part lacks; whether it is the right file then. A wrong one is removed."""
        with path.open("a+b", buffering=0) as out:
            part = Part(file, out, self._watch)
            part.take_up()
            failures = 0
            while part.size < file.size:
                before = part.size
                what = f"the hub sends less of {file.name} than it lists."
                trouble = Trouble(SnapshotError("truncated", what), 0.0)
                try:
                    self._source.load(part, revision)
                except Trouble as told:
                    trouble = told
                if part.size < file.size:
                    failures = 1 if part.size > before else failures + 1
                    self._watch.pause(trouble.fault, trouble.pause_s, failures)
            atomic.flush(out.fileno())
        right = part.size == file.size and file.is_hash(part.hasher)
        if not right:
            path.unlink()
            self._watch.advance(-part.size)
        return right
