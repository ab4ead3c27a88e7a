"""Which profile knows which model."""

import pytest

from g4eval.config import SamplingParams
from g4eval.profile import all_profiles, profile_of


@pytest.mark.parametrize(
    ("model", "profile"),
    [
        ("google/gemma-4-31B-it", "gemma-4-31b"),
        ("google/gemma-4-31b-it", "gemma-4-31b"),
        ("/models/gemma-4-31B-it", "gemma-4-31b"),
        ("/models/gemma-4-31B-it-Q4_K_M.gguf", "gemma-4-31b"),
        ("google_gemma-4-E4B-it-Q8_0.gguf", "gemma-4-e4b"),
        ("nvidia/Gemma-4-31B-IT-NVFP4", "gemma-4-31b"),
        ("nvidia/Gemma-4-26B-A4B-NVFP4", "gemma-4-26b-a4b"),
        ("unsloth/gemma-4-E2B-it-GGUF", "gemma-4-e2b"),
        ("google/gemma-4-12B-it-qat-w4a16-ct", "gemma-4-12b"),
        ("google/gemma-3-270m-it", "gemma-3-270m"),
        ("gemma-3-27b", "gemma-3-27b"),
        ("google/gemma-4-E2B", None),
        ("google/gemma-4-312B-it", None),
        ("somebody/mygemma-4-31B-it", None),
        ("fake", None),
    ],
)
def test_a_model_is_known_by_its_hub_id_its_path_or_its_file_name(model, profile):
    found = profile_of(model)
    assert (found and found.name) == profile


def test_every_size_has_a_profile_that_can_be_used():
    profiles = all_profiles()
    assert set(profiles) >= {
        "gemma-4-31b",
        "gemma-4-26b-a4b",
        "gemma-4-12b",
        "gemma-4-e4b",
        "gemma-4-e2b",
        "gemma-3-27b",
        "gemma-3-270m",
    }
    for profile in profiles.values():
        sampling = SamplingParams(**profile.sampling)
        assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.95, 64)
        assert profile.thinking is (profile.chat_format == "gemma4")
        assert all(len(hash_) == 64 for hash_ in profile.chat_template_hashes)
