"""Preferences: what may stand in the file, and what is said of the rest."""

import tomllib
from pathlib import Path

import pytest

from dambench.core import preferences
from dambench.core.errors import BadInput
from dambench.core.notifying import in_words, signals


def written(text: str) -> Path:
    path = preferences.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_file_all_is_as_it_comes(tmp_path: Path) -> None:
    assert preferences.path() == tmp_path / "config" / "dambench" / "config.toml"
    assert preferences.read() == preferences.Preferences()


def test_a_file_says_what_is_preferred() -> None:
    written('on_finish = "true"\n[console]\nrefresh = 2\nnotify = []\n[keys]\n"runs.filter" = "f"\nlive.images = "I"\n')
    found = preferences.read()
    assert (found.on_finish, found.console.refresh, found.console.notify) == ("true", 2.0, ())
    assert found.keys == {"runs.filter": "f", "live.images": "I"}


def test_each_example_of_the_template_can_be_had() -> None:
    lines = (line.removeprefix("# ") if " = " in line else line for line in preferences.TEMPLATE.splitlines())
    fields = tomllib.loads("\n".join(lines))
    assert set(fields) == set(preferences.Preferences.__struct_fields__)
    assert set(fields["console"]) == set(preferences.ConsolePreferences.__struct_fields__)
    assert preferences.of(fields, "the template").console.theme == "textual-light"
    assert preferences.of(tomllib.loads(preferences.TEMPLATE), "it").console == preferences.ConsolePreferences()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("theme = 'x'", "No option is called 'theme'"),
        ("[console]\nthem = 'x'", "Did you mean 'theme'?"),
        ("[console]\nrefresh = 0", "refresh = 0 is not allowed"),
        ("[console]\nplace = 'lives'", "it is one of last, runs, live, compare, queue, report"),
        ("[console]\nnotify = ['horn']", "notify"),
        ("console = 3", "console is a table"),
        ("[keys]\n'runs.filter' = 3", 'runs.filter needs a key in quotes, such as "f"'),
        ("[keys]\n'runs.filter' = 'f'\n[keys.runs]\nfilter = 'g'", "runs.filter is said twice"),
        ("on_finish = ", "is not valid TOML"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(text: str, said: str) -> None:
    path = written(text)
    with pytest.raises(BadInput, match=r"config\.toml") as error:
        preferences.read()
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_the_terminal_is_made_to_call_as_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    assert signals([], "x") == ""
    assert signals(["toast"], "x") == ""
    assert signals(["bell"], "x") == "\a"
    assert signals(["osc9", "osc777"], "a;b") == "\x1b]9;a,b\a\x1b]777;notify;dambench;a,b\a"
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")
    assert signals(["bell", "osc9"], "x") == "\a\x1bPtmux;\x1b\x1b]9;x\a\x1b\\"


def test_a_text_sent_to_the_terminal_ends_no_sequence() -> None:
    sent = signals(["osc9"], "a\x1b\\\a\x9cb")
    assert sent.count("\x1b") == 1
    assert sent.count("\a") == 1
    assert sent.endswith("\a")
    assert "\x9c" not in sent


def test_runs_that_ended_at_once_are_counted_by_state() -> None:
    assert in_words([("abc", "failed")]) == "The run abc is failed."
    ended = [("a", "finished"), ("b", "lost"), ("c", "finished")]
    assert in_words(ended) == "3 runs have ended: 2 finished, 1 lost."
