"""Getting a model's files from the hub into VOXTRAL_MODEL_DIR, whole or not at all.

`fetch` returns at once and without a network when the folder is complete (`modelfolder`). Else it
asks the hub for the list of files at one commit, and loads those that are missing or wrong, each
into a hidden part file that gets its name when its hash is right. Whatever stops it, the next call
goes on at the byte where it stopped. The manifest comes last.

Files come over plain HTTP, one after the other, through the hub client's session: its own download
functions start a file again from nothing after a crash, and cannot be stopped between two bytes.

`fetch` blocks, so it runs in a thread; `ready` is that thread, with the delay patch after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import attrs
import trio
from huggingface_hub import HfApi, get_session, get_token, hf_hub_url, hf_raise_for_status

from voxtral_actors import limits
from voxtral_actors.engine import atomic, tekken
from voxtral_actors.engine.hubfaults import HTTPError, Patience, Told, explain
from voxtral_actors.engine.modelfolder import (
    Manifest,
    ModelFile,
    SnapshotError,
    check,
    choose,
    choose_weights,
    formats,
    local_snapshot,
    place,
    system_error,
)
from voxtral_actors.settings import Settings
