"""All commands, in the order in which `dambench --help` lists them."""

from dambench.cli import (
    catalog,
    check,
    compare,
    config,
    db,
    doctor,
    estimates,
    experts,
    export,
    figure,
    published,
    queue,
    report,
    run,
    runs,
    serve,
    sets,
    shot,
    suite,
    sweep,
    tune,
    watch,
)
from dambench.cli.arguments import Commands


def add_all(app: Commands) -> None:
    """Add every command to an application."""
    app.command()(run.run)
    app.command()(run.resume)
    app.command()(sweep.sweep)
    app.command()(suite.suite)
    app.command()(run.evaluate)
    app.command()(tune.tune)
    app.command(hidden=True)(check.checks)
    app.command(hidden=True)(estimates.estimates)
    app.command()(watch.watch)
    app.command()(watch.logs)
    app.command()(watch.stop)
    app.command()(watch.wait)
    app.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})(runs.tag)
    app.command()(runs.note)
    app.command()(shot.shot)
    app.command()(serve.serve)
    app.command()(report.report)
    app.command()(compare.compare)
    app.command()(runs.runs)
    app.command()(runs.show)
    app.command("import")(sets.import_)
    app.command()(export.export)
    app.command()(runs.delete)
    app.command()(runs.restore)
    app.command()(catalog.networks)
    app.command()(catalog.protocols)
    app.command()(doctor.doctor)
    app.command("published")(published.published_)
    app.add_typer(catalog.methods_app, name="methods")
    app.add_typer(catalog.data_app, name="data")
    app.add_typer(db.app, name="db")
    app.add_typer(queue.app, name="queue")
    app.add_typer(experts.app, name="experts")
    app.add_typer(figure.app, name="figure")
    app.add_typer(config.app, name="config")
