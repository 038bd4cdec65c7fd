from __future__ import annotations

import pytest

from model_runtime.tokens import MissingTokenError, SpecialTokens

NEEDED = ("<|BOT|>", "<|EOT|>", "<audio_start>", "<audio_end>", "<audio_patch>", "<tts_start>", "<tts_end>")
NAMES = [*NEEDED, "<tts_pad>", *(f"<audio_{code}>" for code in range(6656))]
IDS = {name: 500 + n for n, name in enumerate(NAMES)}


def tokens(**changes: int) -> SpecialTokens:
    ids = {**IDS, **changes}
    return SpecialTokens.from_vocabulary(ids.get, ids.values())


def test_ids_come_from_names() -> None:
    found = tokens()
    assert found.bot == IDS["<|BOT|>"]
    assert found.tts_pad == IDS["<tts_pad>"]
    assert found.audio0 == IDS["<audio_0>"]
    assert found.audio_pad == IDS["<audio_6561>"]
    assert found.audio_slot == (IDS["<audio_0>"], IDS["<audio_6561>"] + 1)


@pytest.mark.parametrize("name", [*NEEDED, "<tts_pad>", "<audio_0>", "<audio_77>", "<audio_6561>"])
def test_a_missing_name_is_told(name: str) -> None:
    ids = {key: value for key, value in IDS.items() if key != name}
    with pytest.raises(MissingTokenError, match=name.replace("|", r"\|")):
        SpecialTokens.from_vocabulary(ids.get, ids.values())


def test_audio_codes_must_be_in_order() -> None:
    with pytest.raises(MissingTokenError, match="<audio_5>"):
        SpecialTokens.from_vocabulary({**IDS, "<audio_5>": 9}.get, IDS.values())


def test_codes_pad_and_reserved_tokens() -> None:
    found = tokens()
    assert [found.code(found.audio0 + k) for k in (0, 6560, 6561, 6600)] == [0, 6560, None, None]
    assert found.code(found.tts_pad) is None
    assert all(found.is_audio(found.audio0 + k) for k in (0, 6561, 6655))
    assert not found.is_audio(found.audio0 + 6656)  # an unused row behind the vocabulary
    assert not found.is_audio(found.tts_end)


def test_what_ends_a_turn() -> None:
    assert tokens().ends == {IDS["<|EOT|>"], IDS["<|BOT|>"]}
    assert 7 in tokens(**{"<|endoftext|>": 7}).ends
