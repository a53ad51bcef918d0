"""Each score on a line of its own, as pandas and R read it."""

import math
from collections.abc import Sequence

from dambench.core.sanitize import display
from dambench.report import names, wording
from dambench.report.parts import Part, Records, Section
from dambench.report.wording import TableEntry
from dambench.store.leaderboard import Leaderboard


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """One table of the metric that is shown."""
    head = ["run", "seed", "repeat", "method", "dataset", "IPC", "trained network", "protocol", "set"]
    lines = [
        (
            score.run,
            [
                TableEntry(display(str(text)))
                for text in (
                    *(score.seed, score.repeat, names.of("method", score.method), names.of("dataset", score.dataset)),
                    wording.MISSING if score.ipc is None else score.ipc,
                    *(names.of("network", score.network), names.of("protocol", score.protocol), score.set_sha256[:12]),
                    wording.figure(board.metric, score.values.get(board.metric.name, math.nan)),
                )
            ],
        )
        for score in board.scores
    ]
    return [Part("Scores", [*head, wording.metric_label(board.metric)], lines)] if lines else []


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each trained network and each metric of the evaluator that is shown; a fraction stays one."""
    hashes = {protocol.label: protocol.sha256 for protocol in board.protocols}
    head = ["run", "seed", "repeat", "method", "dataset", "dataset_sha256", "ipc", "set_sha256", "network", "source"]
    head += ["protocol", "protocol_sha256", "evaluator", "metric", "value"]
    lines = [
        [
            *(score.run, score.seed, score.repeat, score.method, score.dataset, score.dataset_sha256, score.ipc),
            *(score.set_sha256, score.network, score.source, score.protocol, hashes[score.protocol]),
            *(board.metric.evaluator, metric, value if math.isfinite(value) else None),
        ]
        for score in board.scores
        for metric, value in sorted(score.values.items())
    ]
    return Records(head, lines)


SECTION = Section("each score, with its run, seed, set and repeat", parts, records, usual=False)
