"""The sets that a run makes: checked, written to disk, opened again."""

from dataclasses import replace

import torch

from dambench import datasets
from dambench.core import files
from dambench.core.errors import BadInput, Diverged
from dambench.core.events import DataCard, Snapshot
from dambench.engine.job import Job, open_problem
from dambench.engine.preview import preview
from dambench.training.problem import RealSet, SyntheticSet, Whitening


def check_set(synthetic: SyntheticSet, iteration: int, job: Job) -> None:
    """See that a set can be trained on and kept, and is what was asked for.

    Raises:
        BadInput: its shape, type, labels or number of images are not.
        Diverged: its images, its labels or its learning rate are not finite.
    """
    rate = torch.as_tensor(0.0 if synthetic.lr is None else synthetic.lr)
    for part, values in (("images", synthetic.images), ("labels", synthetic.labels), ("learning rates", rate)):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise Diverged(iteration, f"The {part} after iteration {iteration} are not finite")
    try:
        if job.config.ipc is None or synthetic.whole:
            if job.config.ipc is not None or not synthetic.whole:
                raise BadInput(f"It is {'' if synthetic.whole else 'not '}the whole dataset.")
            return
        if fault := synthetic.fault():
            raise BadInput(f"{fault[:1].upper()}{fault[1:]}.")
        if synthetic.preprocessing_name != job.config.preprocessing:
            raise BadInput(
                f"Its images are as {synthetic.preprocessing_name} leaves them, the run is of "
                f"{job.config.preprocessing}."
            )
        if (ipc := synthetic.ipc_on(job.card)) != job.config.ipc:
            raise BadInput(f"It has {ipc} images per class, and {job.config.ipc} were asked for.")
    except BadInput as error:
        which = f"after iteration {iteration}" if iteration else "that it chose"
        raise BadInput(f"The set of the method {job.config.method.name} {which} cannot be used. {error}") from None


def load_set(sha256: str, job: Job, real: RealSet) -> SyntheticSet:
    """Open a set that is on disk, on the run's device.

    Raises:
        BadInput: it is missing or damaged.
    """
    if sha256 == job.card.sha256:
        return open_problem(job, real).whole_set()
    path = files.set_path(sha256)
    if not path.is_file() or files.sha256(path) != sha256:
        raise BadInput(f"The set {sha256[:8]}… that is to be evaluated is missing or damaged in {str(path.parent)!r}.")
    made = SyntheticSet.read(path)
    device = job.policy.device
    return replace(made, images=made.images.to(device), labels=made.labels.to(device))


def save_set(synthetic: SyntheticSet, iteration: int, card: DataCard) -> Snapshot:
    """Write the set to its file, unless it is the prepared dataset itself."""
    if synthetic.whole:
        path = datasets.path_of(card)
        digest, size = card.sha256, path.stat().st_size
    else:
        content = synthetic.to_bytes()
        digest, size = files.digest(content), len(content)
        path = files.set_path(digest)
        if not path.exists():
            with files.writing("The synthetic set", path.parent, files.HOME_HINT):
                files.write_whole(path, content)
    return Snapshot(
        iteration=iteration,
        sha256=digest,
        size_bytes=size,
        shape=list(synthetic.images.shape),
        dtype=str(synthetic.images.dtype).removeprefix("torch."),
        preview=preview(synthetic),
        parts=bytes_of(synthetic),
    )


def bytes_of(synthetic: SyntheticSet) -> dict[str, int]:
    """Count the bytes of all that is needed to train on a set and to test what was trained, by part.

    Images and labels count as they are stored: 4 bytes for each float32 value of a pixel, 1 for each of a real image, 8
    for a class, 4 for each logit of a soft label; a mosaic before it is enlarged. A whitening is its mean and its
    matrix, without which no test image can be shown to a network, a teacher its file. The few numbers of a
    normalisation do not count. Nothing is returned where a teacher is not on this machine.
    """
    labels = synthetic.labels
    parts = {
        "images": synthetic.images.numel() * synthetic.images.element_size(),
        "labels" if labels.dim() == 1 else "soft labels": labels.numel() * labels.element_size(),
    }
    if synthetic.lr is not None:
        parts["learning rate"] = 4
    if isinstance(synthetic.preprocessing, Whitening):
        tensors = synthetic.preprocessing.mean, synthetic.preprocessing.matrix
        parts["whitening"] = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if synthetic.teacher is not None:
        path = files.teacher_path(synthetic.teacher.sha256)
        if not path.is_file():
            return {}
        parts["teacher"] = path.stat().st_size
    return parts
