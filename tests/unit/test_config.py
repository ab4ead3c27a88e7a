import pytest

from g4eval.config import RunConfig, SamplingParams, parse_config, parse_model, parse_settings
from g4eval.errors import ConfigError


def test_values_of_set_are_read_as_yaml() -> None:
    pairs = ["aime26.repeats=16", "engine.flag=true", "sampling.temperature=0.5", "a.b=x y"]
    assert parse_settings(pairs) == {
        "aime26.repeats": 16,
        "engine.flag": True,
        "sampling.temperature": 0.5,
        "a.b": "x y",
    }


@pytest.mark.parametrize("pair", ["no equals", "=3"])
def test_flag_that_is_no_pair_is_refused(pair) -> None:
    with pytest.raises(ConfigError, match="is not KEY=VALUE"):
        parse_settings([pair])


def test_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't be read as a value"):
        parse_settings(["engine.x=[1,"])


def test_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'repeat' is not a known key") as caught:
        parse_config({"repeat": 3}, where="run.yaml")
    assert caught.value.hint == "did you mean repeats?"


def test_value_that_breaks_its_rule_is_shown() -> None:
    with pytest.raises(ConfigError, match="repeats: 0 breaks its rule"):
        parse_config({"repeats": 0}, where="run.yaml")


def test_key_of_set_without_a_group_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'temperature' is not engine\.KEY"):
        parse_config({"set": {"temperature": 1}}, where="run.yaml")


def test_group_returns_its_keys_without_its_name() -> None:
    config = RunConfig(set={"aime26.repeats": 2, "engine.dtype": "bf16"})
    assert config.group("aime26") == {"repeats": 2}


def test_sampling_defaults_are_the_ones_recommended_for_gemma() -> None:
    sampling = SamplingParams()
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.95, 64)


def test_unknown_sampling_key_names_its_group() -> None:
    with pytest.raises(ConfigError, match=r"'sampling\.temprature' is not a known key") as caught:
        parse_model(SamplingParams, {"temprature": 1}, where="--set", prefix="sampling.")
    assert caught.value.hint == "did you mean temperature?"
