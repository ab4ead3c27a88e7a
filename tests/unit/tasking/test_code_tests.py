"""Tests of code tasks on disk: kept by content, checked, read back."""

import pytest

from g4eval.errors import DataError
from g4eval.tasking.code_tests import checked_tests, keep_tests, read_tests

TESTS = [
    {"input": "1\n", "output": "2\n", "testtype": "stdin"},
    {"input": "[1]", "output": "[2]", "testtype": "functional"},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_is_kept_is_read_back():
    name = keep_tests("encoded", lambda: TESTS)
    assert read_tests(name) == TESTS


def test_equal_content_has_one_name_and_is_decoded_once():
    name = keep_tests(["a", "b"], lambda: TESTS)
    assert keep_tests(["a", "b"], lambda: pytest.fail("decoded again")) == name
    assert keep_tests(["a", "c"], lambda: TESTS) != name


def test_texts_with_odd_signs_survive():
    odd = [{"input": "\u2028\ud800é\x00", "output": "", "testtype": "stdin"}]
    assert read_tests(keep_tests("odd", lambda: odd)) == odd


def test_more_than_the_three_fields_are_left_out():
    (test,) = checked_tests([{**TESTS[0], "source": "somewhere", "confirmed": True}])
    assert test == TESTS[0]


def test_tests_in_the_sample_itself_are_read_as_they_are():
    assert read_tests(TESTS) == TESTS


@pytest.mark.parametrize(
    "tests",
    [
        [],
        "[]",
        None,
        7,
        ["text"],
        [{"input": "1", "output": "2"}],
        [{"input": 1, "output": "2", "testtype": "stdin"}],
        [{"input": "1", "output": "2", "testtype": "shell"}],
    ],
)
def test_what_is_no_list_of_tests_is_refused(tests):
    with pytest.raises(DataError):
        checked_tests(tests)


def test_nothing_is_kept_of_tests_that_are_refused(cache):
    with pytest.raises(DataError, match="no tests"):
        keep_tests("empty", list)
    assert not list(cache.rglob("*.zst"))


@pytest.mark.parametrize("content", [b"", b"noise", None])
def test_tests_that_the_cache_lost_are_told(cache, content):
    name = keep_tests("encoded", lambda: TESTS)
    (path,) = cache.rglob("*.zst")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match="can't be read from the cache") as caught:
        read_tests(name)
    assert "loading the task writes them anew" in (caught.value.hint or "")
    assert read_tests(keep_tests("encoded", lambda: TESTS)) == TESTS  # and it does


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="can't be kept") as caught:
        keep_tests("encoded", lambda: TESTS)
    assert "XDG_CACHE_HOME" in (caught.value.hint or "")
