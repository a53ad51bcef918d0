"""`dambench export`: a set for other programs."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from typer import Argument, Option

from dambench.cli.options import Db, Json
from dambench.cli.output import say
from dambench.cli.store import open_store
from dambench.core import files
from dambench.core.config import RunConfig
from dambench.core.errors import BadInput
from dambench.core.sanitize import display
from dambench.store import runs as stored


@dataclass(frozen=True)
class KeptSet:
    """A set that is on this machine, and what the database has about it."""

    sha256: str
    name: str
    """What its file is called by default."""
    accuracies: dict[str, list[float]]
    """By network."""
    dataset: tuple[str, ...]
    """The words of a command that name its dataset."""


def export(
    which: Annotated[
        str, Argument(metavar="ID", help="Of a run, or the SHA-256 of a set; or the beginning of either.")
    ],
    format_: Annotated[
        str | None,
        Option(
            "--format",
            metavar="FORMAT",
            help="safetensors, pt (as DC, DSA and DM), triple (images_best.pt …, as MTT), npz, png, or folder "
            "(CLASS/*.png) [default: by the file's suffix, else safetensors].",
        ),
    ] = None,
    output: Annotated[
        Path | None, Option("--output", "-o", help="The file or the folder [default: ID and the suffix].")
    ] = None,
    images: Annotated[int | None, Option(min=1, help="Of each class in a png, at the most [default: all].")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Even if there is such a file.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Write a synthetic set for other programs. `dambench import` reads tensors back to the bit."""
    from dambench.engine import exports
    from dambench.training.problem import SyntheticSet

    chosen = exports.format_of(format_, output)
    if images is not None and chosen != "png":
        raise BadInput(f"--images is for png: a set in {chosen} has all images.")
    kept = _find(which, db)
    synthetic = SyntheticSet.read(_path_of(kept))
    target = output or Path(f"{kept.name}{exports.SUFFIXES[chosen]}")
    written = exports.write(synthetic, target, chosen, overwrite=overwrite, accuracies=kept.accuracies, images=images)
    command = ["dambench", "import", str(target), *(kept.dataset or ("--dataset", "NAME"))]
    if chosen == "folder" and synthetic.preprocessing_name != "mean/std":
        command += ["--preprocessing", synthetic.preprocessing_name]
    if chosen == "folder" and synthetic.factor > 1:
        command += ["--factor", str(synthetic.factor)]
    importable = chosen != "png"
    for note in written.notes:
        say(f"note: {note}")
    if as_json:
        facts: dict[str, Any] = {
            "sha256": kept.sha256,
            "format": chosen,
            "path": str(written.path),
            "files": written.files,
            "shape": list(synthetic.images.shape),
            "dtype": str(synthetic.images.dtype).removeprefix("torch."),
            "preprocessing": synthetic.preprocessing_name,
            "labels": "hard" if synthetic.labels.dim() == 1 else "soft",
            "lr": synthetic.lr,
            "notes": list(written.notes),
            "command": shlex.join(command) if importable else None,
        }
        print(json.dumps(facts))
        return
    say(f"Written: {target}" + (f" ({written.files} files)" if written.files > 1 else ""))
    if importable:
        print(display(shlex.join(command), 3000))


def _find(which: str, db: Path | None) -> KeptSet:
    """The set of a run, or that of a SHA-256.

    Raises:
        BadInput: there is none, or several.
    """
    path = db or stored.default_path()
    hashes = files.sets(which) if re.fullmatch("[0-9a-f]{8,64}", which) else []
    if len(hashes) > 1:
        raise BadInput(f"{len(hashes)} sets have a SHA-256 that begins with {which!r}: type more of it.")
    if hashes:
        return KeptSet(hashes[0], hashes[0][:12], {}, ())
    with open_store(path) as store:
        row = store.run(which)
        if row.set_sha256 is None:
            raise BadInput(f"The run {row.id} has no set yet.")
        if row.set_sha256 == row.dataset_sha256:
            raise BadInput(f"The set of the run {row.id} is the whole dataset: `dambench data path` says where it is.")
        accuracies: dict[str, list[float]] = {}
        for score in store.query(
            "select network, accuracy from scores where run = ? and final = 1 and accuracy is not null "
            "order by network, repeat",
            row.number,
        ):
            accuracies.setdefault(score["network"], []).append(score["accuracy"])
        dataset = msgspec.json.decode(row.config, type=RunConfig).dataset
    settings = [f"dataset.{name}={_value(value)}" for name, value in dataset.options.items()]
    words = ("--dataset", dataset.name, *(word for pair in settings for word in ("--set", pair)))
    return KeptSet(row.set_sha256, row.id, accuracies, words)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _path_of(kept: KeptSet) -> Path:
    path = files.set_path(kept.sha256)
    if not path.is_file():
        raise BadInput(
            f"The set {kept.sha256[:12]} is not on this machine: `dambench db bundle` where it was made and "
            "`dambench db merge` here bring it."
        )
    if files.sha256(path) != kept.sha256:
        raise BadInput(f"The set {str(path)!r} is damaged: its content is not that of its name.")
    return path
