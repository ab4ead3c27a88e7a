"""Drawing tokens: cuts, penalties, seeds."""

import pytest

torch = pytest.importorskip("torch")

from g4eval.config import SamplingParams  # noqa: E402  after the skip
from g4eval.engines.gemma.head import Head  # noqa: E402
from g4eval.engines.gemma.sampling import Sampler  # noqa: E402
from g4eval.engines.gemma.sampling import choose as choose_from  # noqa: E402

# Probabilities 1/2, 1/4, 1/8, 1/16, 1/16 over tokens 0 to 4.
LOGITS = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]]).log()


def choose(logits, samplers):
    """Choose from given logits: those of a head that hands its rows through."""
    width = logits.shape[1]
    head = Head(torch.eye(width), torch.float32, None, screened=False)
    return choose_from(head, logits, samplers)


def frequencies(draws=4000, **params):
    """Share of each token over many seeds."""
    values = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | params
    counts = [0] * 5
    for seed in range(draws):
        sampler = Sampler(SamplingParams(**values), seed, prompt_ids=[])
        counts[choose(LOGITS, [sampler])[0]] += 1
    return [count / draws for count in counts]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [0.5, 0.25, 0.125, 0.0625, 0.0625]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0, 0]),
        # 0.5 + 0.25 falls short of 0.8, so the third token is the last one kept.
        ({"top_p": 0.8}, [4 / 7, 2 / 7, 1 / 7, 0, 0]),
        ({"top_p": 0.75}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"min_p": 0.2}, [4 / 7, 2 / 7, 1 / 7, 0, 0]),
        # Half the temperature squares the probabilities: 64, 16, 4, 1, 1 of 86.
        ({"temperature": 0.5}, [64 / 86, 16 / 86, 4 / 86, 1 / 86, 1 / 86]),
        # Top-p counts the mass that top-k left: 2/3 reaches 0.6 alone.
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(params, expected):
    # Four standard errors of a share of 4,000 draws are at most 0.032.
    assert frequencies(**params) == pytest.approx(expected, abs=0.032)


def test_temperature_zero_takes_the_most_likely():
    sampler = Sampler(SamplingParams(temperature=0), 5, prompt_ids=[])
    assert choose(torch.tensor([[1.0, 3.0, 2.0]]), [sampler]) == [1]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    params = SamplingParams(temperature=0, repetition_penalty=2.0)
    sampler = Sampler(params, 0, prompt_ids=[0, 2])
    logits = torch.tensor([4.0, 1.0, -1.0])
    sampler.penalise(logits)
    assert logits.tolist() == [2.0, 1.0, -2.0]


def test_presence_penalty_counts_generated_tokens_only():
    sampler = Sampler(SamplingParams(presence_penalty=1.5), 0, prompt_ids=[0])
    sampler.generated.append(1)
    logits = torch.tensor([4.0, 4.0, 4.0])
    sampler.penalise(logits)
    assert logits.tolist() == [4.0, 2.5, 4.0]


def test_a_seed_fixes_the_tokens_whatever_stands_beside():
    wide = torch.randn(3, 2048, generator=torch.Generator().manual_seed(1))
    params = SamplingParams(temperature=1.0, top_k=50)
    alone = choose(wide[1:2], [Sampler(params, 9, [])])
    samplers = [Sampler(params, seed, []) for seed in (3, 9, 4)]
    assert choose(wide, samplers)[1] == alone[0]


def test_rows_with_different_cuts_share_a_batch():
    logits = torch.tensor([[0.0, 9.0, 1.0], [9.0, 0.0, 1.0]])
    greedy = Sampler(SamplingParams(temperature=0), 0, [])
    free = Sampler(SamplingParams(temperature=0.01, top_k=0, top_p=1.0), 0, [])
    assert choose(logits, [greedy, free]) == [1, 0]


def test_penalties_change_what_is_chosen():
    held = Sampler(SamplingParams(temperature=0, presence_penalty=2.0), 0, [])
    held.generated.append(1)
    free = Sampler(SamplingParams(temperature=0), 0, [])
    assert choose(torch.tensor([[0.0, 2.0, 1.0]]).repeat(2, 1), [held, free]) == [2, 1]


def test_requests_that_need_every_logit_share_one_pass_over_the_head():
    calls = []

    class Counted(Head):
        def __call__(self, hidden):
            calls.append(len(hidden))
            return super().__call__(hidden)

    head = Counted(torch.eye(5), torch.float32, None, screened=False)
    wanted = ({"temperature": 0}, {"top_k": 2}, {"top_k": 0}, {"presence_penalty": 1.0})
    samplers = [Sampler(SamplingParams(**params), 3, []) for params in wanted]
    tokens = choose_from(head, LOGITS.repeat(4, 1), samplers)
    assert calls == [4]
    alone = [choose(LOGITS, [Sampler(SamplingParams(**params), 3, [])])[0] for params in wanted]
    assert tokens == alone
