from pathlib import Path

import pytest

from g4eval.errors import StoreError
from g4eval.fingerprint import prompt_hash
from g4eval.records import Chat, Message, Prompt, Text, TokenIds, ToolCall
from g4eval.store.media import read_media, save_media
from g4eval.store.schema import pack_prompt, unpack_messages


def test_bytes_are_stored_once_under_their_hash(tmp_path: Path):
    first = save_media(tmp_path, b"picture", "image/png")
    assert save_media(tmp_path, b"picture", "image/png") == first
    assert [p.name for p in (tmp_path / "media").iterdir()] == [first.sha256]
    assert read_media(tmp_path, first) == b"picture"


def test_bytes_that_were_changed_or_lost_are_named(tmp_path: Path):
    media = save_media(tmp_path, b"picture", "image/png")
    (tmp_path / "media" / media.sha256).write_bytes(b"pictura")
    with pytest.raises(StoreError, match="its hash is another"):
        read_media(tmp_path, media)
    (tmp_path / "media" / media.sha256).unlink()
    with pytest.raises(StoreError, match="can't be read"):
        read_media(tmp_path, media)


def test_a_prompt_comes_back_with_its_parts_and_every_part_is_in_its_hash(tmp_path: Path):
    media = save_media(tmp_path, b"picture", "image/png")
    plain = Message(role="user", content="What is it?")
    call = ToolCall(name="f", arguments="{}")
    others = [
        Message(role="user", content="What is it?", media=(media,)),
        Message(role="assistant", content="What is it?"),
        Message(role="user", content="What is it?", tool_calls=(call,)),
        Message(role="user", content="What is it?", call_id="c1"),
    ]
    for message in (plain, *others):
        assert unpack_messages(pack_prompt(Chat((message,)))) == (message,)
    prompts: list[Prompt] = [Chat((m,)) for m in (plain, *others)]
    prompts += [Text("What is it?"), TokenIds((1, 2))]
    assert len({prompt_hash(prompt) for prompt in prompts}) == len(prompts)
    # SHA-256 of [["user","What is it?"]]: what it was before messages had parts
    assert prompt_hash(Chat((plain,))) == (
        "941d3c894cc6a75d17bca95022a1e12a2b09fb3432f1edb3e5218f512dd229ad"
    )
