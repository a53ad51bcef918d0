"""`python -m benchmarks.today DB…`: docs/today.md, from the runs of `dambench suite today-digits` and `today`.

What the parts of today's methods are worth: mosaics, further moments and a teacher's labels. No number is written by
hand.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from dambench.core.sanitize import markdown
from dambench.report.formats.markdown import grid
from dambench.store.cells import Score
from dambench.store.leaderboard import leaderboard
from dambench.store.runs import Store
from dambench.store.statistics import mean, t_interval

QUICK, SOFT, TWIN, BRIEF = "quick", "soft", "soft-hard", "brief"
TAUGHT = "random (network convnet-d2-w32-bn, teacher_epochs 20)"
TAUGHT_MOSAICS = "random (factor 2, network convnet-d2-w32-bn, teacher_epochs 20)"
MOSAICS = "dm (factor 2, init mix)"

HEAD = """# What the parts of today's methods are worth

Mosaics, moments beyond the mean and a teacher's labels are what methods since 2023 have added to DM. Here each is taken
by itself, on digits at length and [on MNIST](#on-mnist-ipc-1) as far as there was time.

    dambench suite today-digits
    dambench suite today --budget 8h
    python -m benchmarks.today digits.db mnist.db > docs/today.md

wrote this page from the databases of the runs; no number was typed. Sets with the same seed start from the same random
images and are compared in pairs: the difference of the means of their networks, with Student's 95 % interval over the
seeds. With three seeds an interval is wide: *told apart* where it leaves 0 out, one by one, not corrected for the
number of questions. Rows with one set are what there was time for.
"""

DIGITS = """scikit-learn's **digits**: images of 8 × 8 pixels, one image for each class, a network of width 32, short
training (`quick`: 200 epochs), recipes of a hundred or two hundred iterations. Half of 8 pixels is 4, so that a mosaic
has room for little, and a teacher of digits is nearly never wrong. Step sizes are those of the recipes, checked on
validation images ([selection.md](selection.md)): DM's for whole images, those of DSDM, M3D and NCFM for mosaics; DM
takes 200 iterations, the others 100.
"""

MNIST = """**MNIST**: images of 28 × 28 pixels, one image for each class, a network of width 32, protocol `brief` (200
epochs), recipes `brief` (DM 200 iterations, the others 100), whose step sizes were not checked on validation images.
Published figures are of 10,000 to 20,000 iterations, networks of width 128 and longer training: not comparable.
"""


class Row(NamedTuple):
    """Sets that are made and tested in one way."""

    method: str
    protocol: str


class Question(NamedTuple):
    """A difference that answers one."""

    what: str
    row: Row
    over: Row


QUESTIONS = {
    "What mosaics of 2 × 2 alone are worth (four training images in place of one, at a quarter of the pixels)": (
        Question("random", Row("random (factor 2)", QUICK), Row("random", QUICK)),
        Question("DM", Row(MOSAICS, QUICK), Row("dm", QUICK)),
        Question("DSDM", Row("dsdm (factor 2)", QUICK), Row("dsdm (factor 1)", QUICK)),
        Question("M3D", Row("m3d (factor 2)", QUICK), Row("m3d (factor 1)", QUICK)),
        Question("NCFM", Row("ncfm (factor 2)", QUICK), Row("ncfm (factor 1)", QUICK)),
    ),
    "What is beyond DM's means: covariances, kernels, characteristic functions (each as its method has them)": (
        Question("DSDM over DM", Row("dsdm (factor 1)", QUICK), Row("dm", QUICK)),
        Question("M3D over DM", Row("m3d (factor 1)", QUICK), Row("dm", QUICK)),
        Question("NCFM over DM", Row("ncfm (factor 1)", QUICK), Row("dm", QUICK)),
        Question("DSDM over DM, mosaics", Row("dsdm (factor 2)", QUICK), Row(MOSAICS, QUICK)),
        Question("M3D over DM, mosaics", Row("m3d (factor 2)", QUICK), Row(MOSAICS, QUICK)),
        Question("NCFM over DM, mosaics", Row("ncfm (factor 2)", QUICK), Row(MOSAICS, QUICK)),
    ),
    "Whether a teacher's labels make random images catch up (another protocol than DM's: AdamW, CutMix, 300 epochs)": (
        Question("random, the labels alone", Row(TAUGHT, SOFT), Row(TAUGHT, TWIN)),
        Question("random with labels over DM without", Row(TAUGHT, SOFT), Row("dm", QUICK)),
        Question("random mosaics, the labels alone", Row(TAUGHT_MOSAICS, SOFT), Row(TAUGHT_MOSAICS, TWIN)),
        Question("RDED over random, both with labels", Row("rded", SOFT), Row(TAUGHT, SOFT)),
        Question("SRe2L over random, both with labels", Row("sre2l", SOFT), Row(TAUGHT, SOFT)),
    ),
}

WIDTH = "network convnet-d3-w32, recipe brief"


def _of_mnist(method: str, settings: str = "") -> Row:
    return Row(f"{method} ({settings}{WIDTH})", BRIEF)


ON_MNIST = {
    "What mosaics of 2 × 2 alone are worth there": (
        Question("random", Row("random (factor 2)", BRIEF), Row("random", BRIEF)),
        Question("DM", _of_mnist("dm", "factor 2, init mix, "), _of_mnist("dm")),
    ),
    "What is beyond DM's means there, all with mosaics": (
        Question("DSDM over DM", Row("dsdm (factor 2, recipe brief)", BRIEF), _of_mnist("dm", "factor 2, init mix, ")),
        Question("M3D over DM", Row("m3d (factor 2, recipe brief)", BRIEF), _of_mnist("dm", "factor 2, init mix, ")),
        Question("NCFM over DM", Row("ncfm (factor 2, recipe brief)", BRIEF), _of_mnist("dm", "factor 2, init mix, ")),
    ),
}


class Place(NamedTuple):
    """A dataset at an IPC, with what is asked there."""

    title: str
    dataset: str
    ipc: int
    what: str
    questions: Mapping[str, Sequence[Question]]


PLACES = (
    Place("On digits, IPC 1", "digits", 1, DIGITS, QUESTIONS),
    Place("On MNIST, IPC 1", "mnist", 1, MNIST, ON_MNIST),
)

Sets = Mapping[Row, Mapping[int, float]]
"""By row and seed, the mean accuracy of a set's networks, a fraction."""


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    scores: list[Score] = []
    for database in sys.argv[1:]:
        with closing(Store.open(Path(database))) as store:
            scores += leaderboard(store).scores
    print("\n".join(page({place.title: sets_of(place, scores) for place in PLACES})))
    return 0


def sets_of(place: Place, scores: Iterable[Score]) -> Sets:
    """The sets that were tested there."""
    values: dict[Row, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if score.dataset == place.dataset and score.ipc in (place.ipc, None):
            values[Row(score.method, score.protocol.partition("#")[0])][score.seed].append(score.values["accuracy"])
    return {row: {seed: mean(of) for seed, of in by_seed.items()} for row, by_seed in values.items()}


def page(by_place: Mapping[str, Sets]) -> Iterator[str]:
    """The lines of the page."""
    yield HEAD
    for place in PLACES:
        sets = by_place.get(place.title, {})
        yield f"## {place.title}\n"
        yield place.what
        for title, questions in place.questions.items():
            yield f"### {title}\n"
            lines = [answer(question, sets) for question in questions]
            yield grid([["", "with", "without", "difference in points", "seeds", ""], *lines])
            yield ""
        yield f"### All rows on {place.dataset}\n"
        yield "Mean of the set means and half of its 95 % interval over seeds, in %; of one set there is none.\n"
        ordered = sorted(sets, key=lambda row: (row.protocol, -mean(list(sets[row].values()))))
        rows = [[markdown(row.method), row.protocol, accuracy(sets[row]), str(len(sets[row]))] for row in ordered]
        yield grid([["method", "protocol", "accuracy", "sets"], *rows])
        yield ""


def answer(question: Question, sets: Sets) -> list[str]:
    """The difference over the seeds that both rows have."""
    first, second = sets.get(question.row, {}), sets.get(question.over, {})
    seeds = sorted(first.keys() & second.keys())
    shown = [question.what, accuracy(first), accuracy(second)]
    if not seeds:
        return [*shown, "–", "0", "not run"]
    differences = [first[seed] - second[seed] for seed in seeds]
    interval = t_interval(differences)
    if interval is None or len(seeds) < 3:
        return [*shown, f"{100 * mean(differences):+.1f}", str(len(seeds)), "too few seeds"]
    clear = interval.low > 0 or interval.high < 0
    verdict = "told apart" if clear else "not told apart"
    return [*shown, f"{100 * mean(differences):+.1f} ± {100 * interval.half:.1f}", str(len(seeds)), verdict]


def accuracy(by_seed: Mapping[int, float]) -> str:
    """`92.4 ± 1.3`."""
    if not by_seed:
        return "–"
    interval = t_interval(list(by_seed.values())) if len(by_seed) > 1 else None
    half = f" ± {100 * interval.half:.1f}" if interval else ""
    return f"{100 * mean(list(by_seed.values())):.1f}{half}"


if __name__ == "__main__":
    sys.exit(main())
