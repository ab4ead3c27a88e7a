"""Model files: GGUF, safetensors with their index, config.json, chat templates."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from g4eval.engines.gemma.chat import ChatFormat
from g4eval.engines.gemma.checkpoint import open_checkpoint
from g4eval.engines.gemma.gguf_header import GgufHeader
from g4eval.engines.gemma.memory import GIB, plan_memory
from g4eval.engines.gemma.weights import load_model, weight_bytes
from g4eval.records import Message
from tests.fuzz.border import (
    CORPUS,
    HOSTILE,
    Border,
    corpus,
    mutated_bytes,
    mutated_json,
    mutated_value,
)

CPU = torch.device("cpu")
FOLDER = CORPUS / "safetensors"
SEEDS = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir())}
# Metadata value types of GGUF by number, and how each is packed.
_PACKED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}


def _use(model: Path) -> None:
    """Do with a model what a run does before its first token."""
    checkpoint = open_checkpoint(str(model), CPU)
    config = checkpoint.config
    size = weight_bytes(config, checkpoint.source, CPU, torch.float32)
    plan_memory(config, size, torch.float32, max_batch=2, free_bytes=GIB, where=model)
    load_model(config, checkpoint.source, CPU, torch.float32)
    chat = ChatFormat(checkpoint.codec, checkpoint.template, thinking=True)
    chat.check()
    chat.prompt([Message(role="user", content="How many?")])


def read_gguf(data: bytes, folder: Path) -> None:
    """Let a GGUF file in."""
    path = folder / "model.gguf"
    path.write_bytes(data)
    _use(path)


def read_folder(files: dict[str, bytes], folder: Path) -> None:
    """Let a folder of safetensors in."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    _use(folder)


def _packed(kind: int, value: Any) -> bytes:
    """Return a GGUF value, cut or wrapped to what its type can hold."""
    if kind == 8:
        text = str(value).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(text)) + text
    if kind == 9:
        items = value if isinstance(value, list) else [value]
        texts = all(isinstance(item, str) for item in items)
        inner = 8 if texts else 6 if any(isinstance(item, float) for item in items) else 5
        return struct.pack("<IQ", inner, len(items)) + b"".join(_packed(inner, i) for i in items)
    code = _PACKED[kind]
    if code == "?":
        return struct.pack("<?", bool(value))
    if code == "f":
        try:
            return struct.pack("<f", float(value))
        except (TypeError, ValueError, OverflowError):
            return struct.pack("<f", float("nan"))
    size = struct.calcsize("<" + code)
    number = int(value) if isinstance(value, int) else len(str(value))
    return struct.pack("<Q", number % 2**64)[:size]


def write_fields(path: Path, fields: dict[str, Any]) -> bytes:
    """Return a GGUF file with other metadata: a hostile value takes the type nearest to it."""
    header = GgufHeader(path)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(header.tensors), len(fields))
    for key, value in fields.items():
        match value:
            case bool():
                kind = 7
            case int():
                kind = 4 if 0 <= value < 2**32 else 11
            case float():
                kind = 6
            case list():
                kind = 9
            case _:
                kind = 8
        out += _packed(8, key) + struct.pack("<I", kind) + _packed(kind, value)
    begin = min(tensor.offset for tensor in header.tensors.values())
    data = path.read_bytes()
    for tensor in header.tensors.values():
        out += _packed(8, tensor.name) + struct.pack("<I", len(tensor.shape))
        out += b"".join(struct.pack("<Q", size) for size in reversed(tensor.shape))
        out += struct.pack("<IQ", int(tensor.kind), tensor.offset - begin)
    return out + b"\0" * (-len(out) % 32) + data[begin:]


def _fields_changed() -> SearchStrategy[bytes]:
    path = CORPUS / "gguf" / "gemma3.gguf"
    fields = dict(GgufHeader(path).fields)

    def changed(change: list[tuple[str, Any]]) -> bytes:
        return write_fields(path, {**fields, **dict(change)})

    value = st.one_of(st.sampled_from(HOSTILE), st.integers(-2, 2**33), st.text(max_size=9))
    change = st.tuples(st.sampled_from(sorted(fields)), value)
    return st.lists(change, min_size=1, max_size=3).map(changed)


def _folders() -> SearchStrategy[dict[str, bytes]]:
    """The folder of the corpus, one or two of its files changed."""
    changed = {
        name: mutated_json([json.loads(data)]) if name.endswith(".json") else mutated_bytes([data])
        for name, data in SEEDS.items()
    }
    one = st.sampled_from(sorted(SEEDS)).flatmap(
        lambda name: changed[name].map(lambda data: {name: data})
    )
    header = _headers_changed().map(lambda data: {"model.safetensors": data})
    return st.tuples(st.one_of(one, header), st.one_of(st.just({}), one)).map(
        lambda parts: {**SEEDS, **parts[0], **parts[1]}
    )


def _headers_changed() -> SearchStrategy[bytes]:
    data = SEEDS["model.safetensors"]
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])

    def packed(value: Any) -> bytes:
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return mutated_value([header]).map(packed)


def _config_changed() -> SearchStrategy[dict[str, bytes]]:
    config = mutated_json([json.loads(SEEDS["config.json"])])
    return config.map(lambda data: {**SEEDS, "config.json": data})


BORDERS = [
    Border(name="gguf", inputs=mutated_bytes(corpus("gguf")), read=read_gguf, needs="gguf"),
    Border(name="gguf-fields", inputs=_fields_changed(), read=read_gguf, needs="gguf"),
    Border(name="safetensors", inputs=_folders(), read=read_folder, needs="safetensors"),
    Border(name="config.json", inputs=_config_changed(), read=read_folder, needs="safetensors"),
]
