from pathlib import Path

import pytest

from dambench.cli.app import run_cli


def test_the_report_is_written_to_stdout_or_to_a_file(
    ledger_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["report"]) == 0
    text = capsys.readouterr().out
    assert "| dm " in text
    assert run_cli(["report", "-o", "report.md"]) == 0
    assert (tmp_path / "report.md").read_text() == text
    assert capsys.readouterr().out == ""
    assert run_cli(["report", "--rows", "dataset,ipc", "--columns", "method"]) == 0
    assert "| dataset, ipc " in capsys.readouterr().out


def test_a_report_leaves_links_and_permissions_as_they_are(ledger_path: Path, tmp_path: Path) -> None:
    (tmp_path / "real.md").write_text("old")
    (tmp_path / "real.md").chmod(0o600)
    (tmp_path / "link.md").symlink_to("real.md")
    assert run_cli(["report", "-o", "link.md"]) == 0
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "real.md").read_text().startswith("# Dataset")
    assert (tmp_path / "real.md").stat().st_mode & 0o777 == 0o600
    assert run_cli(["report", "-o", "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()
