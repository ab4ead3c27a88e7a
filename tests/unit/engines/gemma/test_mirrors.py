"""Checkpoints as mirrors and other tools write them: read right, or refused by name."""

import json
import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from safetensors.torch import load_file, save_file  # noqa: E402  after the skips

from g4eval.engines.gemma.chat import ChatFormat  # noqa: E402
from g4eval.engines.gemma.checkpoint import open_checkpoint  # noqa: E402
from g4eval.engines.gemma.quantized import Quantization  # noqa: E402
from g4eval.engines.gemma.weights import load_model  # noqa: E402
from g4eval.engines.weights_fingerprint import fingerprint_weights  # noqa: E402
from g4eval.errors import EngineError  # noqa: E402
from g4eval.records import Message  # noqa: E402
from tests.unit.engines.gemma.test_gguf import score, write_gguf  # noqa: E402

CPU = torch.device("cpu")
IDS = [2, 7, 11, 5, 3, 20, 21, 22]
T = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + m.role + '\n' + m.content + '<end_of_turn>\n' }}{% endfor %}"
    "{{ '<start_of_turn>model\n' }}"
)
NAMES = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<b>"]
NAMES += [f"<0x{byte:02X}>" for byte in range(256)] + [f"word{i}" for i in range(300 - 256 - 7)]
NORMAL, CONTROL, BYTE = 1, 3, 6


@pytest.fixture
def tiny(make_tiny, variants):
    """A random Gemma 3 of 300 tokens, whose scale a GGUF file can hold."""
    values = dict(variants["gemma3"])
    return make_tiny("gemma3", {**values, "query_pre_attn_scalar": values["head_dim"]}, shake=True)


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def logprobs(tiny):
    return score(tiny.open(), IDS)


def write_file(monkeypatch, tiny, path, *, fields=None, types=None, template=T, extra=None):
    """Write the model as a GGUF file with a tokenizer; `fields` and `extra` tensors on top."""
    kinds = [CONTROL] * 6 + [NORMAL] + [BYTE] * 256 + [NORMAL] * (300 - 263)
    for token, kind in (types or {}).items():
        kinds[NAMES.index(token)] = kind

    class Writer(gguf.GGUFWriter):  # type: ignore[misc,name-defined]  # from importorskip
        def write_header_to_file(self, *args, **options):
            self.add_token_list(NAMES)
            self.add_token_scores([0.0] * len(NAMES))
            self.add_token_types(kinds)
            if template is not None:
                self.add_chat_template(template)
            for key, value in (fields or {}).items():
                if isinstance(value, list):
                    self.add_array(key, value)
                elif isinstance(value, str):
                    self.add_string(key, value)
                else:
                    self.add_uint32(key, value)
            for name, values in (extra or {}).items():
                self.add_tensor(name, values)
            super().write_header_to_file(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "GGUFWriter", Writer)
        write_gguf(tiny.open(), path)
    return path


@pytest.mark.parametrize(
    "notes",
    [
        {"unsloth_fixed": True, "unsloth_version": "2025.9.7"},
        {"model_name": "google/gemma-3-1b-pt"},
        {"_attn_implementation_autoset": True, "torch_dtype": "bfloat16", "use_cache": False},
        {"_commit_hash": "ab" * 20, "base_model": "google/gemma-3-1b-pt", "license": "gemma"},
    ],
)
def test_notes_of_mirrors_and_trainers_change_nothing(notes, tiny):
    before = logprobs(tiny)
    edit(tiny.folder, **notes)
    assert logprobs(tiny) == before


@pytest.mark.parametrize("types", [{"<start_of_turn>": NORMAL, "<end_of_turn>": NORMAL},
                                   {"<start_of_turn>": 4, "<end_of_turn>": 4},
                                   {"<bos>": NORMAL, "<eos>": NORMAL, "<start_of_turn>": NORMAL},
                                   dict.fromkeys(NAMES[:6], NORMAL)])  # fmt: skip
def test_control_tokens_are_known_by_name_and_template(types, tiny, monkeypatch, tmp_path):
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf", types=types)
    checkpoint = open_checkpoint(str(path), CPU)
    chat = ChatFormat(checkpoint.codec, checkpoint.template, thinking=False)
    chat.check()
    ids = chat.prompt([Message(role="user", content="Hi")]).token_ids
    assert [i for i in ids if i < 7] == [2, 4, 5, 4]


def test_a_marker_known_to_the_template_alone_is_one_token(tiny, monkeypatch, tmp_path):
    template = T.replace("<start_of_turn>", "<b>")
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf", template=template)
    checkpoint = open_checkpoint(str(path), CPU)
    chat = ChatFormat(checkpoint.codec, checkpoint.template, thinking=False)
    ids = chat.prompt([Message(role="user", content="Hi")]).token_ids
    assert ids.count(NAMES.index("<b>")) == 2


LIST, KEY = "tokenizer.chat_templates", "tokenizer.chat_template"
OTHER = "{{ bos_token }}a template for tools"
MARKED = T.replace("<start_of_turn>", "<b>")


@pytest.mark.parametrize(
    ("template", "fields"),
    [
        (T, {LIST: ["rag", "tool_use"], f"{KEY}.rag": OTHER, f"{KEY}.tool_use": OTHER}),
        (T, {LIST: ["default", "rag"], f"{KEY}.default": OTHER, f"{KEY}.rag": OTHER}),
        (None, {LIST: ["default", "rag"], f"{KEY}.default": T, f"{KEY}.rag": OTHER}),
        (None, {LIST: ["chat"], f"{KEY}.chat": T}),
        (" \n", {LIST: ["chat"], f"{KEY}.chat": T}),
        (None, {LIST: ["chat", "rag"], f"{KEY}.chat": T, f"{KEY}.rag": " "}),
        (T, {LIST: ["lost"]}),
        (T, {f"{KEY}.unlisted": OTHER}),
    ],
)
def test_the_default_of_templates_that_a_file_names_is_found(
    template, fields, tiny, monkeypatch, tmp_path
):
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf", template=template, fields=fields)
    assert open_checkpoint(str(path), CPU).template == T


def test_named_templates_without_a_default_are_refused_by_name(tiny, monkeypatch, tmp_path):
    fields = {LIST: ["chat", "rag"], f"{KEY}.chat": T, f"{KEY}.rag": OTHER}
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf", template=None, fields=fields)
    with pytest.raises(EngineError, match="none is the default: chat, rag"):
        open_checkpoint(str(path), CPU)


@pytest.mark.parametrize("names", [["chat"], ["default"]])
def test_a_marker_of_a_named_template_is_one_token(names, tiny, monkeypatch, tmp_path):
    fields = {LIST: names, f"{KEY}.{names[0]}": MARKED}
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf", template=None, fields=fields)
    checkpoint = open_checkpoint(str(path), CPU)
    chat = ChatFormat(checkpoint.codec, checkpoint.template, thinking=False)
    chat.check()
    ids = chat.prompt([Message(role="user", content="Hi")]).token_ids
    assert ids.count(NAMES.index("<b>")) == 2


@pytest.mark.parametrize(
    ("fields", "stops"),
    [
        ({}, {1}),
        ({"tokenizer.ggml.eos_token_ids": [1, 5]}, {1, 5}),
        ({"tokenizer.ggml.eot_token_id": 5}, {1, 5}),
        ({"tokenizer.ggml.eot_token_ids": [5, 6], "tokenizer.ggml.eom_token_id": 4}, {1, 4, 5, 6}),
    ],
)
def test_every_kind_of_stop_id_is_heard(fields, stops, tiny, monkeypatch, tmp_path):
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf", fields=fields)
    checkpoint = open_checkpoint(str(path), CPU)
    assert set(checkpoint.stop_ids) == stops
    assert checkpoint.codec.end_of_turn_ids == {5}


@pytest.mark.parametrize("eos", [None, [], [1], 1])
def test_a_stop_id_that_says_nothing_is_as_if_it_were_missing(eos, tiny):
    edit(tiny.folder, eos_token_id=[1])
    (tiny.folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    assert tiny.open().stop_ids == (1,)


@pytest.mark.parametrize("eos", ["1", [None], [1, "x"], -1, 10**9, True, {"a": 1}])
def test_a_stop_id_of_another_type_is_named(eos, tiny):
    (tiny.folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(EngineError, match=r"eos_token_id is .*, which is no token id"):
        tiny.open()


def test_vision_tensors_in_the_same_file_are_left_out_and_said(tiny, monkeypatch, tmp_path):
    extra = {
        "v.blk.0.attn_q.weight": np.zeros((8, 8), np.float32),
        "mm.mm_input_projection.weight": np.zeros((8, 8), np.float32),
    }
    fields = {"gemma3.vision.block_count": 1}
    path = write_file(monkeypatch, tiny, tmp_path / "sha256-0123", fields=fields, extra=extra)
    checkpoint = open_checkpoint(str(path), CPU)
    assert score(checkpoint, IDS) == pytest.approx(logprobs(tiny), abs=1e-5)
    assert checkpoint.notes[0].startswith("2 vision and audio tensors")


def split(path, folder, count=2):
    """Split a GGUF file as llama.cpp's gguf-split does; return the parts."""
    reader = gguf.GGUFReader(path)
    size = -(-len(reader.tensors) // count)
    parts = []
    for number in range(count):
        part = folder / f"m-{number + 1:05}-of-{count:05}.gguf"
        writer = gguf.GGUFWriter(part, "gemma3")
        for key, field in reader.fields.items():
            if number or key.startswith("GGUF.") or key == "general.architecture":
                continue
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, sub_type=inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[number * size : (number + 1) * size]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        parts.append(part)
    return parts


@pytest.mark.parametrize("count", [2, 3])
def test_a_split_file_is_read_from_all_its_parts(count, tiny, monkeypatch, tmp_path):
    whole = write_file(monkeypatch, tiny, tmp_path / "whole.gguf")
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split(whole, folder, count)
    expected = score(open_checkpoint(str(whole), CPU), IDS)
    for given in (folder, parts[0]):
        assert score(open_checkpoint(str(given), CPU), IDS) == expected
    hashes = {fingerprint_weights(part, cache_dir=tmp_path) for part in parts}
    assert len(hashes) == 1
    parts[-1].write_bytes(parts[-1].read_bytes()[:-4] + b"\1\1\1\1")
    assert fingerprint_weights(parts[0], cache_dir=tmp_path) not in hashes


def test_parts_that_are_missing_or_not_of_one_model_are_named(tiny, monkeypatch, tmp_path):
    whole = write_file(monkeypatch, tiny, tmp_path / "whole.gguf")
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split(whole, folder, 3)
    second = parts[1].read_bytes()
    parts[1].unlink()
    with pytest.raises(EngineError, match="parts are missing: m-00002-of-00003"):
        open_checkpoint(str(parts[0]), CPU)
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(EngineError, match="is not part 2 of 3"):
        open_checkpoint(str(parts[0]), CPU)
    parts[1].write_bytes(second)
    with pytest.raises(EngineError, match="its name says otherwise"):
        open_checkpoint(str(parts[0].rename(folder / "renamed.gguf")), CPU)


def test_a_head_that_is_the_embedding_is_left_out(tiny):
    before = logprobs(tiny)
    edit_weights(
        tiny.folder,
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}),
    )
    assert logprobs(tiny) == before


@pytest.mark.parametrize("where", ["all of it", "one value", "another shape", "flag missing"])
def test_a_head_of_its_own_beside_a_tied_flag_is_refused(where, tiny):
    def change(tensors):
        head = tensors["model.embed_tokens.weight"].clone()
        if where == "one value":
            head[-1, -1] += 1
        elif where == "another shape":
            head = head[:-1].clone()
        else:
            head *= 2
        tensors["lm_head.weight"] = head

    edit_weights(tiny.folder, change)
    if where == "flag missing":
        config = json.loads((tiny.folder / "config.json").read_text())
        config.pop("tie_word_embeddings", None)
        (tiny.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match="tie_word_embeddings"):
        tiny.load()


def test_a_wrapper_that_ties_what_its_text_part_does_not_is_refused(tiny):
    text = json.loads((tiny.folder / "config.json").read_text())
    wrapper = {"model_type": "gemma3", "text_config": text | {"tie_word_embeddings": False}}
    path = tiny.folder / "config.json"
    path.write_text(json.dumps(wrapper | {"tie_word_embeddings": True}))
    with pytest.raises(EngineError, match="True here and False in text_config"):
        tiny.open()


@pytest.mark.parametrize(
    ("divisors", "words"),
    [
        (np.array([1.0] * 8, np.float32), None),
        (np.array([1.0, 2.0] * 4, np.float32), "in a way that isn't run"),
        (np.array([8.0] * 8, np.float32), "in a way that isn't run"),
        (np.array([1.0] * 4 + [1e30] * 4, np.float32), "no Gemma 3 does"),
    ],
)
def test_rotary_divisors_are_not_taken_for_redundant(divisors, words, tiny, monkeypatch, tmp_path):
    extra = {"rope_freqs.weight": divisors}
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf", extra=extra)
    if words is None:
        open_checkpoint(str(path), CPU)
        return
    with pytest.raises(EngineError, match=words):
        open_checkpoint(str(path), CPU)


FP8 = {"quant_method": "compressed-tensors", "format": "float-quantized"}


@pytest.mark.parametrize(
    "group",
    [
        {"input_activations": {"dynamic": True, "num_bits": 8}},
        {"input_activations": {"dynamic": False, "num_bits": 8}},
        {"output_activations": {"dynamic": True, "num_bits": 8}},
        {"weights": {"num_bits": 8, "type": "float", "symmetric": False}},
        {"weights": {"num_bits": 8, "type": "float", "group_size": "x"}},
    ],
)
def test_what_the_engine_could_only_ignore_is_refused(group):
    weights = {"num_bits": 8, "type": "float"}
    config = FP8 | {"config_groups": {"group_0": {"weights": weights, **group}}}
    with pytest.raises(EngineError, match="are not run by the gemma engine"):
        Quantization.of(config, where="config.json")


def test_weights_stored_in_eight_bits_without_a_scale_are_refused(tiny):
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(tiny.folder, lambda t: t.update({name: t[name].to(torch.float8_e4m3fn)}))
    with pytest.raises(EngineError, match="is stored as F8_E4M3, where BF16"):
        tiny.load()


def test_whole_numbers_in_place_of_weights_are_refused(tiny):
    name = "model.norm.weight"
    edit_weights(tiny.folder, lambda t: t.update({name: t[name].to(torch.int64)}))
    with pytest.raises(EngineError, match=r"'norm\.weight' is stored as I64"):
        tiny.load()


def use(path):
    checkpoint = open_checkpoint(str(path), CPU)
    load_model(checkpoint.config, checkpoint.source, CPU, torch.float32)
    return checkpoint.codec


def rewritten(path, **fields):
    from g4eval.engines.gemma.gguf_header import GgufHeader
    from tests.fuzz.borders.model_files import write_fields

    return write_fields(path, {**GgufHeader(path).fields, **fields})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gemma3.block_count", "three"),
        ("gemma3.block_count", 2**31),
        ("gemma3.embedding_length", [64]),
        ("gemma3.attention.head_count", 0),
        ("gemma3.attention.layer_norm_rms_epsilon", float("nan")),
        ("gemma3.rope.freq_base", "x"),
        ("general.architecture", 7),
        ("general.alignment", 0),
        ("tokenizer.ggml.eot_token_id", 2**31),
        ("tokenizer.ggml.eos_token_ids", ["a"]),
        ("tokenizer.chat_template", [1, 2]),
        ("tokenizer.ggml.tokens", [1, 2]),
        ("tokenizer.ggml.token_type", [1, 2]),
        ("tokenizer.ggml.scores", "x"),
        ("split.count", -1),
    ],
)
def test_a_field_of_another_type_or_size_is_named(key, value, tiny, monkeypatch, tmp_path):
    path = write_file(monkeypatch, tiny, tmp_path / "m.gguf")
    path.write_bytes(rewritten(path, **{key: value}))
    with pytest.raises(EngineError):
        use(path)


@pytest.mark.parametrize("count", [2**31, 2**32, 2**63])
@pytest.mark.parametrize("place", [8, 16])  # the number of tensors; of fields
def test_counts_that_no_file_holds_are_refused_at_once(count, place, tiny, tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(tiny.open(), path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, place, count)
    path.write_bytes(data)
    with pytest.raises(EngineError, match="it says that it holds"):
        open_checkpoint(str(path), CPU)


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"model.norm.weight": 3}},
        {"weight_map": {"model.norm.weight": ["a"]}},
        {"weight_map": {"model.norm.weight": "x" * 300 + ".safetensors"}},
        {"weight_map": {"model.norm.weight": "../model.safetensors"}},
        {"weight_map": {"model.norm.weight": "a\0b.safetensors"}},
        {"weight_map": ["model.safetensors"]},
        {"weight_map": {}},
        [],
    ],
)
def test_an_index_that_names_no_file_of_the_folder_is_refused(index, tiny):
    (tiny.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EngineError, match=r"index|not a JSON object"):
        tiny.open()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", ["gemma3_text"]),
        ("model_type", {}),
        ("layer_types", ["full_attention"]),
        ("num_hidden_layers", 10**9),
        ("hidden_size", 2**40),
        ("vocab_size", 2**31),
        ("rms_norm_eps", float("inf")),
        ("num_key_value_heads", 3),
        ("head_dim", 15),
        ("eos_token_id", [1, 2**20]),
        ("rope_parameters", {"full_attention": {"rope_theta": float("nan")}}),
    ],
)
def test_a_config_out_of_bounds_is_refused(key, value, tiny):
    edit(tiny.folder, **{key: value})
    with pytest.raises(EngineError) as caught:
        tiny.open()
    assert "config.json" in str(caught.value.where)


def test_a_config_nested_ten_thousand_deep_is_refused(tiny):
    (tiny.folder / "config.json").write_text('{"a":' * 10_000)
    with pytest.raises(EngineError, match="nested too deeply"):
        tiny.open()
