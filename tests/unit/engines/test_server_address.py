"""Addresses, keys and headers as users give them: sent as they are, or refused unseen."""

import pytest

from g4eval.engines.server_address import (
    api_key_from,
    parse_address,
    parse_headers,
    public_address,
)
from g4eval.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "http://ann:hunter2/x@host/v1",
        "http://ann:hunter2#x@host:80/v1",
        "http://ann:12?hunter2@host/v1",
        "http://ann:123/hunter2@host/v1",
        "ann:hunter2@host/v1",
        "http://127.0.0.1:80a0/v1",
        "http://[::1/v1",
        "http://host:99999/v1",
        "http://host:0/v1",
        "http://a..b/v1",
        "http://" + "a" * 64 + ".b/v1",
        "http://ho st/v1",
        "http://ho\nst/v1",
        "http://host/v\x00",
        "http:/127.0.0.1/v1",
        "http:///v1",
        "ftp://host/v1",
        "127.0.0.1:8000/v1",
        "",
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_unseen(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(url)
    assert caught.value.exit_code == 2
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in public_address(url)


def test_escaped_passwords_are_sent_as_they_are_meant() -> None:
    address = parse_address(" http://ann:a%2Fb%23c%3Fd%40e@host:8000/v1/?key=x%2Fy@z#f ")
    assert (address.user, address.password) == ("ann", "a/b#c?d@e")
    assert address.query == (("key", "x/y@z"),)
    assert address.public == "http://host:8000/v1"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/v1", "http://[::1]/v1", "http://localhost/v1", "http://127.9.9.9"]
)
def test_this_machine_is_reached_without_a_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("ALL_PROXY", "socks://proxy")
    assert parse_address(url).proxy() is None


def test_other_hosts_are_reached_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "[::1],.inside")
    assert parse_address("https://host/v1").proxy() == "http://proxy:3128"
    assert parse_address("https://a.inside/v1").proxy() is None


def test_a_key_is_stripped_and_refused_where_no_header_can_carry_it() -> None:
    assert api_key_from({"G4EVAL_API_KEY": " sk-1\n", "OPENAI_API_KEY": "sk-2"}) == "sk-1"
    assert api_key_from({"G4EVAL_API_KEY": " ", "OPENAI_API_KEY": "sk-2"}) == "sk-2"
    assert api_key_from({}) is None
    for key in ("sk-1\nsk-2", "“sk-1”", "sk\x00-1", "sk-é-1"):
        with pytest.raises(ConfigError) as caught:
            api_key_from({"OPENAI_API_KEY": key})
        assert "sk" not in str(caught.value)
        assert "OPENAI_API_KEY" in str(caught.value)


def test_headers_are_taken_apart_and_their_values_never_shown() -> None:
    assert parse_headers(["api-key: s3cret", "X-Team:a:b"]) == {
        "api-key": "s3cret",
        "X-Team": "a:b",
    }
    for line in ("s3cret", "a b: s3cret", "host: s3cret", "api-key: s3\ncret", "k: “s3cret”", "k:"):
        with pytest.raises(ConfigError) as caught:
            parse_headers([line])
        assert "s3" not in str(caught.value)
