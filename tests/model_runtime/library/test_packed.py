"""A voice's file as bytes: what is told of it, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.library import packed
from model_runtime.library.catalogue import Catalogue
from model_runtime.library.shelf import put
from tests.model_runtime.engine.rig import checkpoint
from tests.model_runtime.library.test_shelf import about, voice


def file(folder: Path) -> bytes:
    return put(folder, "anna", voice(), about()).read_bytes()


def test_it_is_told_as_the_library_tells_it(tmp_path: Path) -> None:
    catalogue = Catalogue(str(checkpoint()), tmp_path)
    content = put(tmp_path, "carl", voice(), about(codec=catalogue.codec)).read_bytes()
    catalogue.shelf.look()
    told = {entry.name: entry for entry in catalogue.entries()}["carl"]
    mine = packed.entry("carl", content)
    assert mine.speaker == pytest.approx(told.speaker, abs=2e-5)
    assert (mine.name, mine.consent, mine.seconds) == ("carl", "nobody was recorded", told.seconds)
    assert torch.tensor(mine.speaker).norm() == pytest.approx(1, abs=1e-3)


def test_what_is_no_such_file_is_said_to_be_none(tmp_path: Path) -> None:
    good = file(tmp_path)
    short = [len(header).to_bytes(8, "little") + header for header in (b"{}", b"[1]", b"\xff")]
    for content in (b"", b"torn", good[:20], good[:-1], *short):
        with pytest.raises(packed.Unusable):
            packed.entry("anna", content)
    with pytest.raises(packed.Unusable, match="which checkpoint"):
        packed.about(b"torn")


def test_what_is_said_with_it_may_be_anything(tmp_path: Path) -> None:
    anything: tuple[object, ...] = ({packed.ABOUT: "{}"}, {packed.ABOUT: 1}, [], None)
    for said in anything:
        header = json.dumps({"__metadata__": said}).encode()
        with pytest.raises(packed.Unusable):
            packed.about(len(header).to_bytes(8, "little") + header)


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(content: bytes) -> None:
    with pytest.raises(packed.Unusable):
        packed.entry("anna", content)
