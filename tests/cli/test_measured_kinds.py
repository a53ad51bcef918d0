"""`show` prints what was measured of subjects of one kind in a table of its own."""

from dambench.cli.show import _of_one_kind


def test_subjects_with_the_same_metrics_or_some_of_them_share_a_table() -> None:
    measured = {"net 1": ["a", "b", "status"], "net 2": ["status"], "set": ["tau", "k"], "early": ["tau", "k"]}
    rows = [{"subject": subject, "metric": metric} for subject, metrics in measured.items() for metric in metrics]
    tables = [list(dict.fromkeys(row["subject"] for row in some)) for some in _of_one_kind(rows)]
    assert tables == [["net 1", "net 2"], ["set", "early"]]
    assert sum(map(len, _of_one_kind(rows))) == len(rows)
    assert _of_one_kind(rows[:3]) == [rows[:3]]
