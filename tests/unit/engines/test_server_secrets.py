"""Secrets in every form they come back in."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from g4eval.engines.server_secrets import Secrets, is_secret_name, secrets_in, without_secrets

KEY = "sk-inv/nted+01'23é=="


def forms(secret: str) -> dict[str, str]:
    data = secret.encode()
    return {
        "raw": secret,
        "percent": quote(secret, safe=""),
        "percent but for slashes": quote(secret),
        "plus": quote_plus(secret),
        "lower percent": quote(secret, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
        "every byte percent": "".join(f"%{byte:02X}" for byte in data),
        "repr": repr(secret)[1:-1],
        "repr of bytes": repr(data)[2:-1],
        "JSON": json.dumps(secret)[1:-1],
        "JSON twice": json.dumps(json.dumps({"k": secret})),
        "HTML": html.escape(secret),
        "hex": data.hex(),
        "base64": base64.b64encode(data).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(data).decode(),
        "base64 of a header": base64.b64encode(f"Bearer {secret}".encode()).decode(),
        "base64 of a login": base64.b64encode(f"x:{secret}\n".encode()).decode(),
        "base64 of a pair": base64.b64encode(f"ab{secret}cd".encode()).decode(),
    }


@pytest.mark.parametrize("name", forms(KEY))
def test_a_secret_is_hidden_in_this_form(name: str) -> None:
    form = forms(KEY)[name]
    for hide in (Secrets([KEY]).hide, Secrets([KEY]).hide_in_text):
        said = hide(f"<<{form}>>")
        assert "***" in said
        assert said.startswith("<<")
        assert not any(form[i : i + 12] in said for i in range(len(form) - 12))


def test_a_short_secret_takes_no_answer_away() -> None:
    secrets = Secrets(["4", "true", "ann"])
    assert (
        secrets.hide_in_text("The answer is 4, which is true") == "The answer is 4, which is true"
    )
    assert secrets.hide("HTTP 404: user ann, v=4") == "HTTP 404: user ***, v=***"


def test_nothing_is_hidden_where_there_is_nothing_to_hide() -> None:
    assert Secrets(["", ""]).hide("text") == "text"
    assert "k" not in repr(Secrets(["k-123456"])).replace("hidden", "")[8:]


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("password", True),
        ("db_password", True),
        ("api_key", True),
        ("x-api-key", True),
        ("apiKey", True),
        ("Authorization", True),
        ("access_token", True),
        ("secret", True),
        ("cookie", True),
        ("max_tokens", False),
        ("stop_token_ids", False),
        ("tokenizer", False),
        ("keyword", False),
        ("guided_regex", False),
    ],
)
def test_a_field_is_known_for_a_secret_by_its_name(name: str, *, is_secret: bool) -> None:
    assert is_secret_name(name) == is_secret


def test_passwords_of_a_body_are_hidden_wherever_they_stand() -> None:
    body = {
        "top_k": 3,
        "auth": {"user": "ann", "password": "hunter2"},
        "tools": [{"headers": {"X-Api-Key": "k-99"}}],
        "max_tokens": 5,
    }
    assert without_secrets(body) == {
        "top_k": 3,
        "auth": "***",
        "tools": [{"headers": {"X-Api-Key": "***"}}],
        "max_tokens": 5,
    }
    assert secrets_in(body) == {"ann", "hunter2", "k-99"}


@pytest.mark.parametrize("name", sorted(forms(KEY).keys() - {"JSON twice"}))
@pytest.mark.parametrize("around", ["{}", "{}...", "the server sent: '{}'"])
def test_the_beginning_of_a_secret_is_hidden_where_a_quote_was_cut(name: str, around: str) -> None:
    form, secrets = forms(KEY)[name], Secrets([KEY])
    inside = name.startswith("base64 of")
    for length in range(30 if inside else 15, len(form)):
        said = secrets.hide(around.format("no key like " + form[:length]))
        assert not any(form[i : i + 12] in said for i in range(12 if inside else 0, length - 11))
        assert inside or "***" in said, (form[:length], said)
    assert secrets.hide("an invoice, a skin...") == "an invoice, a skin..."
