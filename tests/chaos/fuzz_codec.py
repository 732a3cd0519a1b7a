"""Looks for octets that break what `frames_checks.py` says, guided by what code they reach.

    python -m tests.chaos.fuzz_codec decode -max_total_time=300
    python -m tests.chaos.fuzz_codec frames -max_total_time=300 FOLDER

It needs `pip install atheris`, which is no dependency of the project; what follows the name goes to
libFuzzer as it is. Without a folder it starts from the messages and frames that `neighbours_fuzz`
makes up. What it finds belongs into `test_frames_fuzz.py`.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

SEEDS = 300
INSTRUMENTED = ["voxtral_actors.protocol", "voxtral_actors.server.websocket_stream", "wsproto"]


def main(name: str, *arguments: str) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        checks = importlib.import_module("tests.chaos.frames_checks")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SEEDS):
            (Path(folder) / str(seed)).write_bytes(checks.drawn(name, seed))
        given = [argument for argument in arguments if not argument.startswith("-")]
        atheris.Setup([sys.argv[0], *arguments, *([] if given else [folder])], checks.CHECKS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
