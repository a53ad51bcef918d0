"""The finished runs of a table, and what their rows are called: the method, with what sets it apart from the others."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import Struct

from dambench.core.files import digest
from dambench.store import final_scores
from dambench.store.baselines import teacher_of, words_of
from dambench.store.final_scores import FinalScores
from dambench.store.results import damaged
from dambench.store.runs import Store

NORMS = ("in", "bn", "ln", "gn", "nn")
"""As the names of networks spell them."""


Settings = dict[str, Any]
"""Options of a method, an evaluator or a run, as JSON has them."""


class FinishedRun(Struct, frozen=True):
    """A row of `runs`, with what the run was computed with."""

    number: int
    id: str
    seed: int
    method: str
    dataset: str
    dataset_sha256: str
    ipc: int | None
    network: str
    """Matched on."""
    protocol: str
    protocol_sha256: str
    overrides: str
    recipe: str
    copied: str | None
    """Its final scores, as `final_scores` has them; None: they are in the tables alone."""
    copied_sha256: str | None


@dataclass
class SeedMates:
    """What finished runs that differ in nothing but the seed have in common, as one network has seen their sets."""

    run: FinishedRun
    """The newest of them."""
    config: Settings
    """Its own, with its seed."""
    versions: tuple[str | None, str | None]
    """Those of dambench and torch; None: not known."""
    network: str
    traits: Settings
    """What their numbers depend on besides the method's options, by the names that rows tell it by."""
    options: Settings
    dataset: str
    """As tables call it."""
    label: str = ""
    """The name of their row."""

    @cached_property
    def settings(self) -> str:
        """All of it as JSON: scores of which this is the same, of one dataset and IPC, are of one kind."""
        return json.dumps([self.run.method, self.options, self.traits], sort_keys=True)

    @property
    def place(self) -> tuple[str, int | None]:
        return self.run.dataset_sha256, self.run.ipc

    @cached_property
    def kind(self) -> tuple[str, str, int | None]:
        """The key of scores that are called by one name."""
        return self.settings, *self.place

    @cached_property
    def computed(self) -> tuple[tuple[str, str], ...]:
        """Versions and devices, as far as known: they should change bits at most, and are told where they are mixed."""
        facts = {
            "dambench": self.versions[0],
            "torch": self.versions[1],
            "kind of device": self.config.get("where", {}).get("device", "cpu").partition(":")[0],
            "kind of operations": "deterministic" if self.config.get("deterministic") else "any",
        }
        return tuple((name, value) for name, value in facts.items() if value)

    @cached_property
    def on_source(self) -> bool:
        """True where the network is the one that the set was matched on, whatever the norm of either."""
        return _without_norm(self.network) == _without_norm(self.run.network)

    @cached_property
    def tested(self) -> tuple[str, ...]:
        """The preprocessing and precision of the test images, where they are not the usual ones."""
        usual = {"preprocessing": "mean/std", "tested in": "fp32"}
        return tuple(f"{name} {self.traits[name]}" for name in usual if self.traits[name] != usual[name])

    @cached_property
    def one_set(self) -> bool:
        """Whether their method makes one set only: it has no iterations."""
        return not self.config["method"].get("options", {}).get("iterations")

    @cached_property
    def on_the_way(self) -> bool:
        """Whether sets on the way are evaluated, too."""
        return bool((self.config.get("evaluate_every") or 0) > 0)

    @cached_property
    def first(self) -> str:
        """The first network that they are evaluated on."""
        return str(self.config["evaluate_on"][0])

    @cached_property
    def due(self) -> int:
        """How many of each network they were asked for."""
        return int(self.config.get("eval_repeats", 1))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Flags of `dambench run` that another method's run must share, besides protocol and networks."""
        return words_of(self.config)

    @cached_property
    def teacher(self) -> str:
        """Whose labels the networks were trained with, as `Score` has it."""
        return teacher_of(self.config)


class EvaluatedRun(NamedTuple):
    """A finished run as one network has seen its set."""

    run: FinishedRun
    mates: SeedMates


class FinishedRuns(NamedTuple):
    """Finished runs as they were read."""

    runs: list[FinishedRun]
    """Newest first."""
    scores: dict[int, FinalScores]
    """By number, of all of them."""
    broken: dict[int, str]
    """Number → id of those whose results are not those of their checksum, which are left out."""


_MEANT = "runs.state = 'finished' and runs.deleted_at = '' and {}"


def finished_runs(store: Store, only: tuple[str, Sequence[Any]], *, among: FinishedRuns | None = None) -> FinishedRuns:
    """Read all finished runs.

    Args:
        only: a condition on `runs` and its parameters.
        among: what was read already, and is not read again where all that are meant are of it.
    """
    if among is not None:
        numbers = {
            row[0] for row in store.rows(f"select runs.number from runs where {_MEANT.format(only[0])}", *only[1])
        }
        if numbers <= among.scores.keys():
            return FinishedRuns(
                [run for run in among.runs if run.number in numbers],
                {number: scores for number, scores in among.scores.items() if number in numbers},
                {number: run for number, run in among.broken.items() if number in numbers},
            )
    rows = store.rows(
        f"""
        select runs.number, id, seed, method, runs.dataset, dataset_sha256, ipc, network, protocol,
            protocol_sha256, overrides, recipe, finals.body, finals.sha256
        from runs left join finals on finals.run = runs.number where {_MEANT.format(only[0])}
        order by {store.by_age(newest_first=True)}
        """,
        *only[1],
    )
    runs = [FinishedRun(*row) for row in rows]
    scores = final_scores.read([(run.number, run.copied, run.copied_sha256) for run in runs])
    uncopied = [run for run in runs if run.number not in scores]
    broken: dict[int, str] = {}
    if uncopied:
        uncopied_numbers = [run.number for run in uncopied]
        these = "runs.number in (select value from json_each(?))"
        damaged_ones = damaged(store.query, these, [json.dumps(uncopied_numbers)])
        broken = {run.number: run.id for run in reversed(uncopied) if run.number in damaged_ones}
        scores |= final_scores.from_tables(store.query, uncopied_numbers)
        runs = [run for run in runs if run.number not in broken]
    return FinishedRuns(runs, scores, broken)


def evaluated_runs(store: Store, finished: FinishedRuns, evaluator: str) -> list[EvaluatedRun]:
    """All of them, newest first, by the networks that were trained on their sets."""
    runs, scores, _ = finished
    made_in = _precisions(store, {scores[run.number].made for run in runs} - {""})
    groups: dict[Any, list[FinishedRun]] = {}
    for run in runs:
        of_run = scores[run.number]
        computed = of_run.computed
        versions = (computed.dambench, computed.torch) if computed else (None, None)
        # All that they have besides number, id and seed.
        key = (
            *(of_run.alike, versions, made_in.get(of_run.made), tuple(of_run.subjects.get(evaluator, ())), run.method),
            *(run.dataset, run.dataset_sha256, run.ipc, run.network, run.protocol, run.overrides, run.recipe),
        )
        groups.setdefault(key, []).append(run)
    datasets = _dataset_labels(runs)
    configs = _configs(store, [group[0] for group in groups.values()])
    found: dict[int, list[SeedMates]] = {}
    for (_, versions, precision, measured, *_), group in groups.items():
        newest = group[0]
        config = configs[newest.number]
        of_another = not measured and config.get("evaluator", {}).get("name", "accuracy") != evaluator
        mates = [
            SeedMates(
                run=newest,
                config=config,
                versions=versions,
                network=network,
                traits=_traits(newest, config, network, precision),
                options=config["method"].get("options", {}),
                dataset=datasets[newest.dataset_sha256],
            )
            for network in (() if of_another else sorted({*measured, *config["evaluate_on"]}))
        ]
        found |= dict.fromkeys((run.number for run in group), mates)
    _name_rows([one for group in groups.values() for one in found[group[0].number]])
    return [EvaluatedRun(run, one) for run in runs for one in found[run.number]]


def _configs(store: Store, runs: Sequence[FinishedRun]) -> dict[int, Settings]:
    rows = store.rows(
        "select number, config from runs where number in (select value from json_each(?))",
        json.dumps([run.number for run in runs]),
    )
    return {number: json.loads(config) for number, config in rows}


def _precisions(store: Store, sets: Collection[str]) -> dict[str, str | None]:
    """In which precision sets were made that were only evaluated since, by their SHA-256; None: not known."""
    if not sets:
        return {}
    rows = store.rows(
        """
        select value, (select json_extract(maker.config, '$.precision') from artifacts join runs maker
            on maker.number = artifacts.run where artifacts.sha256 = value
            and coalesce(json_extract(maker.config, '$.where.made'), '') = '' limit 1)
        from json_each(?)
        """,
        json.dumps(sorted(sets)),
    )
    return dict(rows)


def _traits(run: FinishedRun, config: Settings, network: str, made_in: str | None) -> Settings:
    """Every field of RunConfig that is neither an axis, a setting of the method nor the seed, and changes the meaning
    of a score, not only its last bits.

    Args:
        made_in: in which precision the set was made that the run only evaluates; None: it made it, or nobody knows.
    """
    precision = config.get("precision", "fp32")
    on_cpu = config.get("where", {}).get("device", "cpu") == "cpu"
    matched = run.network
    evaluator = config.get("evaluator", {}).get("options", {})
    version = config.get("evaluator_version", 1)
    return {
        "network": matched,
        "preprocessing": config.get("preprocessing", "mean/std"),
        "precision": (made_in or precision) if matched else "",
        # bf16 is of the real branch alone: networks are then tested as the device does by default.
        "tested in": precision if precision != "bf16" else "fp32" if on_cpu else "tf32",
        "version": config.get("method_version", 1),
        "code": [
            plugin
            for plugin in config.get("plugins", [])
            if plugin["kind"] != "networks" or any(name.startswith(plugin["name"]) for name in (matched, network))
        ],
        # Left out where it is as it always was: names of rows are made of a digest of all this.
        **_made_without(config),
        **({"evaluator": {"evaluator version": version, **evaluator}} if evaluator or version != 1 else {}),
    }


def _made_without(config: Settings) -> Settings:
    """Whether a set was made without validation images, where that is not as its protocol has it."""
    held_out, wanted = config.get("held_out"), config.get("protocol", {}).get("hold_out")
    if bool(held_out) == bool(wanted):
        return {}
    return {"held out": "validation" if held_out else "none"}


def _name_rows(entries: Sequence[SeedMates]) -> None:
    """Give each entry, that of the newest runs first, the name of its row: the method, with what sets it apart.

    That is what differs from its recipe, preprocessing other than the usual one, and where entries would still have
    the same name, what differs between them: precision, versions, the evaluator's settings and code wherever they
    stand, else within a dataset and IPC, where the newest keeps the name as it is (a recipe may have changed since
    the older ones were run).
    """
    newest_of: dict[Any, SeedMates] = {}
    for entry in entries:
        newest_of.setdefault(entry.kind, entry)
    names = {kind: _settings_shown(entry) for kind, entry in newest_of.items()}

    def same(also: Callable[[SeedMates], Any]) -> Iterable[list[SeedMates]]:
        groups: dict[Any, list[SeedMates]] = {}
        for kind, entry in newest_of.items():
            groups.setdefault((method_label(entry.run.method, names[kind]), also(entry)), []).append(entry)
        return groups.values()

    for trait, words in (
        ("precision", _precision),
        ("version", _version),
        ("evaluator", _evaluator),
        ("code", _code),
    ):
        traits = ("precision", "tested in") if trait == "precision" else (trait,)
        for group in same(lambda entry: None):
            if len({str([entry.traits.get(name) for name in traits]) for entry in group}) > 1:
                named = [words(entry.traits) for entry in group]
                if trait == "evaluator":  # of its many options those that differ
                    named = _differing(named)
                for entry, own in zip(group, named, strict=True):
                    names[entry.kind] |= own
    for group in same(lambda entry: entry.place):
        newest = group[0].options | {"network": group[0].traits["network"]}
        for entry in group:
            mine = entry.options | {"network": entry.traits["network"]}
            names[entry.kind] |= {
                name: mine.get(name, "not known") for name in newest | mine if mine.get(name) != newest.get(name)
            }
    for group in same(lambda entry: entry.place):
        alike = len({entry.settings for entry in group}) == 1
        for entry in group:
            label = method_label(entry.run.method, names[entry.kind])
            entry.label = label if alike else f"{label} #{digest(entry.settings.encode())[:4]}"
    for entry in entries:
        entry.label = newest_of[entry.kind].label


def _differing(named: Sequence[Settings]) -> list[Settings]:
    """Keep of each what is not the same in all."""
    every = {name for own in named for name in own}
    kept = {name for name in every if len({json.dumps(own.get(name), sort_keys=True) for own in named}) > 1}
    return [{name: value for name, value in own.items() if name in kept} for own in named]


def _settings_shown(entry: SeedMates) -> Settings:
    """The settings that differ from the recipe's, and how the images were preprocessed and the factor of mosaics,
    recipe or not."""
    changed: Settings = json.loads(entry.run.overrides)
    changed.pop("preprocessing", None)
    zca = entry.traits["preprocessing"]
    return (
        changed
        | ({"preprocessing": zca} if zca != "mean/std" else {})
        | ({"held out": entry.traits["held out"]} if "held out" in entry.traits else {})
        | ({"precision": "bf16"} if entry.traits["precision"] == "bf16" else {})
        | ({"factor": factor} if (factor := entry.options.get("factor", 1)) != 1 else {})
    )


def _precision(traits: Settings) -> dict[str, str]:
    made, tested = traits["precision"] or traits["tested in"], traits["tested in"]
    return ({"precision": made} if made != "fp32" else {}) | (
        {"tested in": tested} if tested != ("fp32" if made == "bf16" else made) else {}
    )


def _version(traits: Settings) -> Settings:
    return {"version": traits["version"]}


def _evaluator(traits: Settings) -> Settings:
    return dict(traits.get("evaluator", {"evaluator version": 1}))


def _code(traits: Settings) -> dict[str, str]:
    return {
        plugin.get("package") or plugin["name"]: f"{plugin.get('version', '')} {plugin['sha256'][:8]}".strip()
        for plugin in traits["code"]
    }


def _without_norm(network: str) -> str:
    """A network's full name without its norm."""
    return "-".join(part for part in network.split("-") if part not in NORMS)


def _dataset_labels(runs: Iterable[FinishedRun]) -> dict[str, str]:
    """Name the datasets; those of the same name are told apart by as much of their hash as that takes."""
    names = {run.dataset_sha256: run.dataset for run in runs}
    shas: dict[str, list[str]] = {}
    for sha256, name in names.items():
        shas.setdefault(name, []).append(sha256)
    enough = {
        name: next(length for length in range(4, 65) if len({sha[:length] for sha in twins}) == len(twins))
        for name, twins in shas.items()
    }
    return {sha: f"{name}#{sha[: enough[name]]}" if len(shas[name]) > 1 else name for sha, name in names.items()}


def method_label(method: str, overrides: str | Settings) -> str:
    """`dm`, or `dm (iterations 50, lr_images 0.1)` where settings differ from the recipe's.

    Of a hash, its beginning is shown.

    Args:
        overrides: those settings, or their JSON.
    """
    changed = json.loads(overrides) if isinstance(overrides, str) else overrides
    if not changed:
        return method
    settings = ((name, re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", str(value))) for name, value in changed.items())
    return f"{method} ({', '.join(f'{name} {value}' for name, value in sorted(settings))})"
