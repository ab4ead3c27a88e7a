import asyncio
import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from g4eval.config import SamplingParams
from g4eval.errors import StoreError, UsageError
from g4eval.records import (
    Attempt,
    Chat,
    Completion,
    Grade,
    Message,
    Outcome,
    Request,
    Sample,
    StopReason,
    StoredTry,
    Thought,
)
from g4eval.store.reader import RunReader, find_run
from g4eval.store.run_store import RunStore

COMPLETION = Completion(
    key="k" * 64,
    task_id="t",
    sample_id="s",
    repeat=2,
    text="the answer \ud800 \0 \u2028",
    reasoning="thought",
    raw_text="<think>thought</think>the answer",
    stop_reason=StopReason.LENGTH,
    thought=Thought.CLOSED,
    prompt_token_ids=[2, 105],
    token_ids=[7, 8, 262143],
    prompt_tokens=2,
    reasoning_tokens=1,
    completion_tokens=3,
    started_at=1.5,
    finished_at=2.5,
    target="C",
)
GRADE = Grade(
    key=COMPLETION.key,
    grader="integer",
    grader_version=1,
    outcome=Outcome.INCORRECT,
    extraction="5",
    details={"reading": "box"},
)


def add(store: RunStore, *records: Completion | Grade | Attempt) -> None:
    async def go() -> None:
        for record in records:
            match record:
                case Completion():
                    await store.add_answer(record)
                case Grade():
                    await store.add_grade(record)
                case Attempt():
                    await store.add_attempt(record)
        await store.flush()

    asyncio.run(go())


def test_completion_comes_back_as_it_was(tmp_path) -> None:
    with RunStore(tmp_path) as store:
        add(store, COMPLETION)
        assert store.completion(COMPLETION.key) == COMPLETION
        assert store.has_completion(COMPLETION.key)
        assert store.finished_tries("t") == {("s", 2)}


def test_completion_is_never_changed(tmp_path) -> None:
    other = dataclasses.replace(COMPLETION, text="something else")
    with RunStore(tmp_path) as store:
        add(store, COMPLETION, other)
        assert store.completion(COMPLETION.key) == COMPLETION


def test_newest_grade_counts_and_the_older_one_stays(tmp_path) -> None:
    again = dataclasses.replace(GRADE, grader_version=2, outcome=Outcome.CORRECT)
    with RunStore(tmp_path) as store:
        add(store, COMPLETION, GRADE, again)
        (row,) = store.rows("t")
        assert row.grade == again
        assert row.outcome is Outcome.CORRECT
    with contextlib.closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        assert db.execute("SELECT COUNT(*) FROM grades").fetchone() == (2,)


def test_completion_without_a_grade_is_ungraded(tmp_path) -> None:
    with RunStore(tmp_path) as store:
        add(store, COMPLETION)
        (row,) = store.rows("t")
        assert row.outcome is Outcome.UNGRADED


def test_failed_request_is_listed_until_it_is_answered(tmp_path) -> None:
    attempt = Attempt(key="k" * 64, task_id="t", sample_id="s", repeat=2, error="500", at=1.0)
    with RunStore(tmp_path) as store:
        add(store, attempt)
        assert store.failed("t") == {("s", 2): "500"}
        add(store, COMPLETION)
        assert store.failed("t") == {}


def test_ungraded_pages_leave_out_what_this_version_has_graded(tmp_path) -> None:
    with RunStore(tmp_path) as store:
        add(store, COMPLETION)
        page = {"after": 0, "limit": 5}
        ((_, stored),) = store.ungraded("t", "integer", 1, retry=False, **page)
        assert stored == StoredTry(completions=(COMPLETION,))
        add(store, GRADE)
        assert store.ungraded("t", "integer", 1, retry=False, **page) == []
        ((_, stored),) = store.ungraded("t", "integer", 2, retry=False, **page)
        assert stored == StoredTry(completions=(COMPLETION,))


def test_failure_to_grade_is_tried_again_only_where_asked(tmp_path) -> None:
    failed = dataclasses.replace(GRADE, outcome=Outcome.UNGRADED)
    with RunStore(tmp_path) as store:
        add(store, COMPLETION, failed)
        assert store.ungraded("t", "integer", 1, after=0, limit=5, retry=False) == []
        assert len(store.ungraded("t", "integer", 1, after=0, limit=5, retry=True)) == 1


def request(content: str) -> Request:
    return Request(
        key="k" * 64, task_id="t", task_version=1, sample_id="s", repeat=2,
        prompt=Chat((Message(role="user", content=content),)), sampling=SamplingParams(), seed=1,
    )  # fmt: skip


def test_prompt_is_stored_beside_its_completion(tmp_path) -> None:
    with RunStore(tmp_path) as store:
        store.expect(request("What?"), gated=False)
        add(store, COMPLETION)
        (row,) = store.rows("t")
        assert row.prompt_hash is not None
        assert store.prompt(row.prompt_hash) == (Message(role="user", content="What?"),)


def test_gated_prompt_is_stored_as_a_hash_alone(tmp_path) -> None:
    with RunStore(tmp_path) as store:
        store.expect(request("a very secret question"), gated=True)
        store.set_task("t", {}, [Sample(sample_id="s", target="a secret option")], gated=True)
        add(store, COMPLETION)
        (row,) = store.rows("t")
        assert row.prompt_hash is not None
        assert store.prompt(row.prompt_hash) is None
        assert store.samples("t")[0].target is None
    assert b"secret" not in (tmp_path / "run.sqlite").read_bytes()


def test_second_writer_is_refused(tmp_path) -> None:
    with RunStore(tmp_path), pytest.raises(StoreError, match="another process is writing"):
        RunStore(tmp_path)


def test_reader_sees_a_run_under_way(tmp_path) -> None:
    with RunStore(tmp_path) as store:
        store.set_meta({"run_id": "r"})
        add(store, COMPLETION)
        with RunReader(tmp_path) as reader:
            assert reader.run_id == "r"
            assert reader.completion(COMPLETION.key) == COMPLETION


def test_run_can_be_moved_and_read_from_a_folder_that_cannot_be_written(tmp_path) -> None:
    with RunStore(tmp_path / "a") as store:
        add(store, COMPLETION)
    moved = (tmp_path / "a").rename(tmp_path / "b")
    assert not (moved / "run.sqlite-wal").exists(), "the run isn't in one file"
    moved.chmod(0o500)
    try:
        with RunReader(moved) as reader:
            assert reader.has_completion(COMPLETION.key)
    finally:
        moved.chmod(0o700)


def test_folder_without_a_run_is_refused(tmp_path) -> None:
    with pytest.raises(StoreError, match="there is no run here"):
        RunReader(tmp_path)


def test_a_run_that_is_only_being_made_says_so(tmp_path) -> None:
    db = sqlite3.connect(tmp_path / "run.sqlite")
    db.execute("PRAGMA journal_mode = WAL")  # as far as a writer has come before its tables
    with pytest.raises(StoreError, match="only being made") as caught:
        RunReader(tmp_path)
    assert "try again in a moment" in str(caught.value.hint)
    db.close()
    with RunStore(tmp_path), RunReader(tmp_path) as run:  # its command makes it anew
        assert run.meta() == {"schema_version": "2"}


def test_tables_are_made_all_at_once(tmp_path, monkeypatch) -> None:
    half = "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT); CREATE TABLE nonsense;"
    with monkeypatch.context() as patch:
        patch.setattr("g4eval.store.schema.SCHEMA", half)
        with pytest.raises(StoreError, match="can't be written"):
            RunStore(tmp_path)
    with pytest.raises(StoreError, match="no run here"):
        RunReader(tmp_path)
    RunStore(tmp_path).close()


def test_broken_database_is_refused(tmp_path) -> None:
    (tmp_path / "run.sqlite").write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(StoreError, match="the run can't be read"):
        RunReader(tmp_path)


def test_run_is_found_by_path_or_id_and_the_nearest_is_offered(tmp_path: Path) -> None:
    RunStore(tmp_path / "gemma-fake-1").close()
    assert find_run("gemma-fake-1", tmp_path) == tmp_path / "gemma-fake-1"
    folder = tmp_path / "gemma-fake-1"
    assert find_run(str(folder), Path("elsewhere")) == folder
    with pytest.raises(UsageError) as caught:
        find_run("gemma-fake-2", tmp_path)
    assert caught.value.hint == "did you mean gemma-fake-1?"
