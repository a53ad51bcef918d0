"""`dambench import`: synthetic sets that were made elsewhere."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from dambench.cli.options import DatasetSettings, Json, data_path, request_options
from dambench.cli.output import say
from dambench.core import claims, config, files, sanitize
from dambench.core.errors import BadInput
from dambench.core.units import size

if TYPE_CHECKING:
    from dambench.training.problem import SyntheticSet


@request_options(data="")
def import_(
    file: Annotated[
        Path,
        Argument(metavar="FILE", help="A synthetic set, a folder of CLASS/*.png, or images_best.pt beside its labels."),
    ],
    dataset: Annotated[str, Option(help="What it was made from. See `dambench data list`.")],
    format_: Annotated[
        str, Option("--format", metavar="FORMAT", help="auto (by the suffix), safetensors, npz, pt or images.")
    ] = "auto",
    pixels: Annotated[
        str | None,
        Option(help="What floats are: normalised, or plain: unit (0 to 1), bytes (0 to 255), symmetric (-1 to 1)."),
    ] = None,
    preprocessing: Annotated[
        str | None,
        Option(help="Of its images: mean/std, or zca, as MTT, DATM and PAD have it [default: mean/std]."),
    ] = None,
    experiment: Annotated[
        int | None, Option(help="Of a file with several sets, only this one, from 0 [default: all].")
    ] = None,
    lr: Annotated[
        float | None, Option(help="The learning rate that was distilled with it, where the file does not say it.")
    ] = None,
    factor: Annotated[
        int | None,
        Option(help="Its images are mosaics of N × N, as those of IDC, IDM and DREAM (2) [default: they are none]."),
    ] = None,
    *,
    settings: DatasetSettings = None,
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Keep a synthetic set that was made elsewhere, so that it can be evaluated."""
    from dambench import datasets
    from dambench.engine import imports

    groups = config.settings(settings or [])
    if "method" in groups:
        raise BadInput("A set is imported for a dataset: --set takes dataset.NAME=VALUE only.")
    files.can_keep_sets()
    card = datasets.prepare(config.Choice(dataset, groups.get("dataset", {})), data_path(given["data"]), say)
    imported = imports.read(file, card, format_, pixels, preprocessing, experiment, lr, say, factor)
    hashes, first = [imports.keep(*each) for each in zip(imported.sets, imported.claims, strict=True)], imported.sets[0]
    several = len(hashes) > 1
    for note in [*card.notes, *imported.notes]:
        say(f"note: {note}")
    if several:
        say(f"{len(hashes)} sets, all that it has: seed 0 takes the first, and so on. --experiment N imports one.")
    elif imported.total > 1:
        say(f"1 of its {imported.total} sets: experiment {imported.experiments[0]}.")
    words = ["dambench", "run", "--headless", "--method", "imported", "--dataset", dataset, "--ipc", str(imported.ipc)]
    words += ["--protocol", imports.protocol_for(first)]
    words += ["--seeds", f"0-{len(hashes) - 1}"] if several else []
    words += [word for pair in settings or [] for word in ("--set", pair)] + (
        ["--data", given["data"]] if given["data"] else []
    )
    named = ",".join(sha256[:12] for sha256 in hashes) if several else hashes[0]
    command = shlex.join([*words, "--set", f"method.set={named}"])
    facts = {
        "sha256": None if several else hashes[0],
        "sets": hashes,
        "experiments": list(imported.experiments),
        "dataset": card.label,
        "ipc": imported.ipc,
        **_facts_of(first),
        "file": None if several else str(files.set_path(hashes[0])),
        "claims": [each.accuracies if each else {} for each in imported.claims],
        "notes": [*card.notes, *imported.notes],
        "command": command,
    }
    if as_json:
        print(json.dumps(facts))
        return
    _print_facts(facts)
    print(f"\n{sanitize.display(command, 3000)}")


def _facts_of(synthetic: "SyntheticSet") -> dict[str, Any]:
    """What is printed of a set itself."""
    from dambench.engine.sets import bytes_of

    return {
        "shape": list(synthetic.images.shape),
        "dtype": str(synthetic.images.dtype).removeprefix("torch."),
        "preprocessing": synthetic.preprocessing_name,
        "labels": "hard" if synthetic.labels.dim() == 1 else "soft",
        "lr": synthetic.lr,
        "factor": synthetic.factor,
        "bytes": bytes_of(synthetic),
    }


def _print_facts(facts: dict[str, Any]) -> None:
    if len(facts["sets"]) > 1:
        for number, sha256 in zip(facts["experiments"], facts["sets"], strict=True):
            print(f"{f'set {number}':14}{sha256}")
    for key in ("sha256", "dataset", "ipc", "shape", "dtype", "preprocessing", "labels", "lr", "factor", "file"):
        if facts[key] is not None and (key, facts[key]) != ("factor", 1):
            value = f"{facts[key]:.6g}" if key == "lr" else str(facts[key])
            print(f"{key:14}{sanitize.display(value, 1000)}")
    if facts["bytes"]:
        each = ", ".join(f"{part} {size(count)}" for part, count in facts["bytes"].items())
        print(f"{'takes':14}{size(sum(facts['bytes'].values()))}: {each}")
    for number, accuracies in zip(facts["experiments"], facts["claims"], strict=True):
        if accuracies:
            title = f"claimed {number}" if len(facts["sets"]) > 1 else "claimed"
            print(f"{title:14}{sanitize.display(claims.in_words(accuracies), 1000)}")
