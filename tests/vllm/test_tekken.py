"""The delay patch as the model sees it: read back with Mistral's own tokenizer library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mistral_common", reason="the vllm extra is not installed")

from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.utils import get_one_valid_tokenizer_file

from tests.vllm import tiny_model
from voxtral_actors.engine import tekken


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = tiny_model._tekken(480)
    (tmp_path / tekken.FILE).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def audio_config(folder: Path) -> Any:
    """As the engine finds it: the one tokenizer file of the folder, the kept original or not."""
    names = [path.name for path in folder.iterdir()]
    path = folder / get_one_valid_tokenizer_file(names)
    encoder = MistralTokenizer.from_file(path).instruct_tokenizer.audio_encoder
    assert encoder is not None
    return encoder.audio_config


@pytest.mark.parametrize("delay_ms", [80, 400, 480, 960, 2400])
def test_p19_the_tokenizer_has_as_many_delay_tokens_as_the_delay_says(
    folder: Path, delay_ms: int
) -> None:
    tokens = tekken.set_delay(folder, delay_ms)

    config = audio_config(folder)
    assert config.transcription_delay_ms == delay_ms
    assert config.get_num_delay_tokens() == tokens == tekken.delay_tokens(delay_ms) == delay_ms / 80


def test_p19_every_delay_counts_as_the_tokenizer_counts(folder: Path) -> None:
    config = audio_config(folder)

    for delay_ms in tekken.DELAYS_MS:
        assert config.get_num_delay_tokens(delay_ms) == tekken.delay_tokens(delay_ms)


def test_p19_nothing_but_the_delay_differs(folder: Path) -> None:
    before = MistralTokenizer.from_file(folder / tekken.FILE).instruct_tokenizer.tokenizer
    config = audio_config(folder)

    tekken.set_delay(folder, 2400)

    after = MistralTokenizer.from_file(folder / tekken.FILE).instruct_tokenizer.tokenizer
    assert after.vocab() == before.vocab()
    text = "Ich höre 3 Sätze, 東京."
    assert after.encode(text, bos=True, eos=True) == before.encode(text, bos=True, eos=True)
    config.transcription_delay_ms = 2400
    assert audio_config(folder) == config
