from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dambench.cli.app import run_cli
from dambench.core.errors import BadInput
from dambench.runner import processes
from dambench.store import filters
from dambench.store.runs import Store
from tests import ledger
from tests.ledger import add, config, words


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Runs that are named by what they are, and tagged with that name."""
    ids = (f"zzzzz{letter}" for letter in "abcdefg")  # a bare word may be the beginning of an id: of none of these
    patched = pytest.MonkeyPatch()
    with closing(Store.open(tmp_path_factory.mktemp("filters") / "runs.db", write=True)) as store:
        patched.setattr("dambench.store.records.new_id", lambda: next(ids))

        def enter(name: str, run: str) -> None:
            store.edit(run, "name", name)
            store.edit(run, "tag", name)

        enter("dm-1", add(store, config("dm", 1), [0.5, 0.6]))
        enter("dm-10", add(store, config("dm", 10, seed=3), [0.9]))
        enter("datadam", add(store, config("datadam", 10), [0.75], card=ledger.other_data("e", "mnist")))
        enter("whole", add(store, config("whole"), [1.0]))
        enter("failed", add(store, config("random", 50), end=ledger.failed()))
        running = store.create(config("dc", 2), ledger.CARD, process=processes.this_process())
        said = store.record(running, words(config("dc", 2)))
        for _ in range(4):
            next(said)
        enter("running", running)
        enter("lost", store.create(config("dsa", 2), ledger.CARD))
        patched.undo()
        store.edit(running, "note", "lambda 0.01, as in 100% of the paper")
        store.edit(running, "tag", "old thing")
        yield store


def meant(store: Store, text: str) -> set[str]:
    sql, values = filters.read(text).where(processes.states(store))
    return {row["name"] for row in store.query(f"select name from runs where {sql}", *values)}


EVERY = {"dm-1", "dm-10", "datadam", "whole", "failed", "running", "lost"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", EVERY),
        ("   ", EVERY),
        ("method:dm", {"dm-1", "dm-10"}),
        ("METHOD:DM", {"dm-1", "dm-10"}),
        ("method:d", set()),
        ("method:d*", {"dm-1", "dm-10", "datadam", "running", "lost"}),
        ('method:"d*"', set()),
        ("method:dm|datadam", {"dm-1", "dm-10", "datadam"}),
        ("method:dm|datadam ipc<=1", {"dm-1"}),
        ("-method:dm|datadam", EVERY - {"dm-1", "dm-10", "datadam"}),
        ("method:dm ipc:1 | dataset:mnist", {"dm-1", "datadam"}),
        ("ipc:10", {"dm-10", "datadam"}),
        ("ipc=10", {"dm-10", "datadam"}),
        ("-ipc:10", EVERY - {"dm-10", "datadam"}),
        ("-ipc>2", {"dm-1", "whole", "running", "lost"}),
        ("ipc:whole", {"whole"}),
        ("seed>=1", {"dm-10"}),
        ("accuracy>=75", {"dm-10", "datadam", "whole"}),
        ("accuracy>54.9% accuracy<55.1", {"dm-1"}),
        ("state:lost", {"lost"}),
        ("state:run", {"running"}),
        ("state:wait", set()),
        ("-state:done", {"failed", "running", "lost"}),
        ("state:fail|lost", {"failed", "lost"}),
        ("tag:dm-1", {"dm-1"}),
        ("tag:dm*", {"dm-1", "dm-10"}),
        ('tag:"old thing"', {"running"}),
        ("-tag:old*", EVERY - {"running"}),
        ("note:LAMBDA", {"running"}),
        ("note=lambda", set()),
        ("note:100%", {"running"}),
        ("note:0_0", set()),
        ("name:atad", {"datadam"}),
        ("name=atad", set()),
        ("mnist", {"datadam"}),
        ("thing", {"running"}),
        ('"old thing"', {"running"}),
        ("dm", {"dm-1", "dm-10"}),
        ("dm -10", {"dm-1"}),
        ("network:convnet*", EVERY),
        ("protocol:quick", EVERY),
        ("protocol:quic", set()),
        ("protocol:quick#*", EVERY),
        ("host:nowhere", set()),
        ("iteration:2", EVERY - {"running", "lost"}),
        ("age<1h", EVERY),
        ("age>1min", set()),
        ("created>=2020-01", EVERY),
        ("created<2020", set()),
    ],
)
def test_a_filter_means_these_runs(store: Store, text: str, names: set[str]) -> None:
    assert meant(store, text) == names


def test_an_id_is_known_by_its_beginning(store: Store) -> None:
    run = store.query("select id from runs where name = 'whole'")[0]["id"]
    assert meant(store, f"id:{run}") == meant(store, f"id={run}") == {"whole"}
    assert "whole" in meant(store, f"id:{run[:2]}")
    assert meant(store, f"id={run[:2]}") == set()


def test_a_day_that_is_named_belongs_to_both_sides(store: Store) -> None:
    today = store.query("select created_at from runs")[0]["created_at"][:10]
    for sign in (":", "=", "<=", ">="):
        assert meant(store, f"created{sign}{today}") == EVERY
    assert meant(store, f"created>{today}") == meant(store, f"created<{today}") == set()


def test_the_age_of_a_run_is_that_of_now(store: Store) -> None:
    sql, values = filters.read("age>3d").where({}, datetime.now(UTC) + timedelta(days=4))
    assert len(store.query(f"select 1 from runs where {sql}", *values)) == len(EVERY)


def test_a_silent_run_is_found_although_its_row_says_that_it_runs(store: Store) -> None:
    number = store.query("select number from runs where name = 'running'")[0]["number"]
    for state, found in (("silent", 1), ("running", 0), ("lost", 0)):
        sql, values = filters.read(f"state:{state}").where({number: "silent"})
        assert len(store.query(f"select 1 from runs where {sql}", *values)) == found


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("metod:dm", "Did you mean 'method'?"),
        ("method:", "method:dm"),
        ("method:dm|", "method:dm"),
        ("method<dm", "with : or ="),
        ("ipc:ten", "whole number"),
        ("ipc<whole", "with : or ="),
        ("seed:1.5", "whole number"),
        ("accuracy:50", "accuracy>=50"),
        ("accuracy>x", "percent"),
        ("age<3", "with s, min, h, d or w"),
        ("age:3d", "<, <=, > or >="),
        ("created>yesterday", "created>=2026-11-01"),
        ("state:lots", "'lost'"),
        ("a |", "one condition on each"),
        ("| a", "one condition on each"),
        ('name:"a', "closes it"),
        ("-", "-old"),
        ('""', "lacks a word"),
    ],
)
def test_a_filter_that_cannot_be_understood_says_what_would_be_right(text: str, right: str) -> None:
    with pytest.raises(BadInput) as error:
        filters.read(text)
    assert right in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(st.sampled_from("abm:=<>-|*\"'%_;)( 1\\"), max_size=20))
def test_whatever_is_typed_is_understood_or_refused_and_never_sql(store: Store, text: str) -> None:
    for said in (text, f"method:{text}", f"-note:{text}", f"tag:{text} | x"):
        try:
            found = filters.read(said)
        except BadInput:
            continue
        sql, values = found.where({})
        assert sql.count("?") == len(values)
        store.query(f"select count(*) from runs where {sql}", *values)


def test_every_field_has_an_example_that_is_right_and_a_word_in_the_rows(store: Store) -> None:
    assert set(filters.EXAMPLES) == set(filters.FIELDS)
    for example in filters.EXAMPLES.values():
        meant(store, example.partition(", ")[0])
    assert set(filters.STATES) == set(get_args(processes.State))


def test_runs_and_report_take_a_filter(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    db = ["--db", str(store.path)]
    assert run_cli(["runs", "--filter", "method:dm -ipc:10", "--json", *db]) == 0
    (row,) = msgspec.json.decode(capsys.readouterr().out)
    assert row["name"] == "dm-1"
    assert run_cli(["runs", "--filter", "method:nobody", *db]) == 0
    assert capsys.readouterr().out == "No run is meant by this filter.\n"
    assert run_cli(["runs", "--filter", "ipc:ten", *db]) == 2
    assert "whole number" in capsys.readouterr().err
    assert run_cli(["report", "--filter", "method:dm", *db]) == 0
    told = capsys.readouterr().out
    assert "2 finished runs; only those meant by method:dm." in told
    assert "datadam" not in told
    assert run_cli(["report", "--filter", "method:nobody", *db]) == 2
    assert "No finished run is meant by the filter 'method:nobody'" in capsys.readouterr().err


def test_tags_and_notes_are_given_and_taken_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = ["--db", str(tmp_path / "tags.db")]
    with closing(Store.open(tmp_path / "tags.db", write=True)) as store:
        run = add(store, config())
        assert run_cli(["tag", run, "thesis", "a b", "thesis", *db]) == 0
        assert capsys.readouterr().out == "a b thesis\n"
        assert run_cli(["tag", run[:4], "-thesis", "new", "-absent", *db]) == 0
        assert capsys.readouterr().out == "a b new\n"
        assert run_cli(["tag", run, "-", *db]) == 2
        assert "a tag is a word" in capsys.readouterr().err
        assert run_cli(["tag", run, *db]) == 2
        assert "No tag was said" in capsys.readouterr().err
        other = add(store, config("random"))
        assert run_cli(["tag", run, other, "both", "-new", *db]) == 0
        assert "2 runs tagged: both -new." in capsys.readouterr().err
        assert run_cli(["tag", "--filter", "tag:both method:random", other[:2], *db]) == 0  # no id, where a filter is
        assert store.describe(other)["tags"] == sorted(["both", other[:2]])
        assert run_cli(["tag", "--filter", "tag:nobody", "x", *db]) == 2
        assert run_cli(["note", run, "bad \x1b[31m words", *db]) == 0
        assert store.run(run).note == "bad \N{REPLACEMENT CHARACTER}[31m words"
        assert run_cli(["show", run, *db]) == 0
        assert "[31m words" in capsys.readouterr().out
        assert run_cli(["note", run, "", *db]) == 0
        assert store.run(run).note == ""
