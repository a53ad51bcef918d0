import typer
from typer.testing import CliRunner

from dambench.cli.executors import Chosen, executor_options
from dambench.runner.executors import Wishes


def _chosen(*words: str) -> Chosen:
    app, found = typer.Typer(), []

    @app.command()
    @executor_options
    def work(tag: str = "", *, where: Chosen) -> None:
        found.append((tag, where))

    result = CliRunner().invoke(app, ["--tag", "mine", *words])
    assert result.exit_code == 0, result.output
    ((tag, where),) = found
    assert tag == "mine"
    return where


def test_the_flags_of_executors_are_what_is_asked_of_one() -> None:
    assert _chosen() == Chosen("local", None, {})
    slurm = ["--executor", "slurm", "--partition", "gpu", "--time", "2h", "--gres", "gpu:1", "--slurm-flag", "nice=5"]
    where = _chosen(*slurm, "--slurm-flag", "exclusive", "--workers", "9")
    options = {"partition": "gpu", "time": "2h", "gres": "gpu:1", "flag": "nice=5\nexclusive"}
    assert where == Chosen("slurm", 9, options)
    assert where.wishes(["cuda:0"]) == Wishes(workers=9, devices=("cuda:0",), options=options)
