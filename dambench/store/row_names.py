"""The finished runs of a table, and what their rows are called: the method, with what sets it apart from the others."""

import json
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msgspec import Struct

from dambench.core.files import digest
from dambench.store.runs import Store

NORMS = ("in", "bn", "ln", "gn", "nn")
"""As the names of networks spell them."""


Settings = dict[str, Any]
"""Options of a method, an evaluator or a run, as JSON has them."""


class FinishedRun(Struct):
    """A row of `runs`, with what the run was computed with."""

    number: int
    id: str
    method: str
    dataset: str
    dataset_sha256: str
    ipc: int | None
    network: str
    """Matched on."""
    protocol: str
    seed: int
    overrides: str
    recipe: str
    config: str
    dambench: str | None
    torch: str | None
    networks: str
    """Evaluated on, as JSON."""
    made_in: str | None
    """In which precision the set was made that this run only evaluates."""


@dataclass
class EvaluatedRun:
    """A finished run as one network has seen its set."""

    run: FinishedRun
    config: Settings
    network: str
    traits: Settings
    """What its number depends on besides the method's options, by the names that rows tell it by."""
    options: Settings
    dataset: str
    """As tables call it."""
    label: str = ""
    """The name of its row."""

    @cached_property
    def settings(self) -> str:
        """All of it as JSON: scores of which this is the same, of one dataset and IPC, are of one kind."""
        return json.dumps([self.run.method, self.options, self.traits], sort_keys=True)

    @property
    def place(self) -> tuple[str, int | None]:
        return self.run.dataset_sha256, self.run.ipc

    @property
    def kind(self) -> tuple[str, str, int | None]:
        """The key of scores that are called by one name."""
        return self.settings, *self.place

    @cached_property
    def computed(self) -> tuple[tuple[str, str], ...]:
        """Versions and devices, as far as known: they should change bits at most, and are told where they are mixed."""
        facts = {
            "dambench": self.run.dambench,
            "torch": self.run.torch,
            "kind of device": self.config.get("where", {}).get("device", "cpu").partition(":")[0],
            "kind of operations": "deterministic" if self.config.get("deterministic") else "any",
        }
        return tuple((name, value) for name, value in facts.items() if value)

    @cached_property
    def on_source(self) -> bool:
        """True where the network is the one that the set was matched on, whatever the norm of either."""
        return _without_norm(self.network) == _without_norm(self.run.network)

    @property
    def tested(self) -> tuple[str, ...]:
        """The preprocessing and precision of the test images, where they are not the usual ones."""
        usual = {"preprocessing": "mean/std", "tested in": "fp32"}
        return tuple(f"{name} {self.traits[name]}" for name in usual if self.traits[name] != usual[name])


def evaluated_runs(
    store: Store, evaluator: str, but: Container[int], only: tuple[str, Sequence[Any]]
) -> list[EvaluatedRun]:
    """All finished runs, newest first, by the networks that were trained on their sets."""
    rows = store.query(
        f"""
        select runs.number, id, method, runs.dataset, dataset_sha256, ipc, network, protocol, seed, overrides, recipe,
            config, environments.dambench, environments.torch,
            (select json_group_array(distinct subject) from evaluations
                where evaluations.run = runs.number and evaluations.evaluator = ?) as networks,
            (select json_extract(maker.config, '$.precision') from artifacts join runs maker
                on maker.number = artifacts.run where artifacts.sha256 = json_extract(runs.config, '$.where.made')
                and coalesce(json_extract(maker.config, '$.where.made'), '') = '' limit 1) as made_in
        from runs left join environments on environments.run = runs.number
        where runs.state = 'finished' and runs.deleted_at = '' and {only[0]}
        order by {store.by_age(newest_first=True)}
        """,
        evaluator,
        *only[1],
    )
    runs = [FinishedRun(**row) for row in rows if row["number"] not in but]
    datasets = _dataset_labels(runs)
    entries = []
    for run in runs:
        config = json.loads(run.config)
        options = config["method"].get("options", {})
        measured = set(json.loads(run.networks))
        if not measured and config.get("evaluator", {}).get("name", "accuracy") != evaluator:
            continue
        for network in sorted({*measured, *config["evaluate_on"]}):
            traits = _traits(run, config, network)
            entries.append(EvaluatedRun(run, config, network, traits, options, datasets[run.dataset_sha256]))
    _name_rows(entries)
    return entries


def _traits(run: FinishedRun, config: Settings, network: str) -> Settings:
    """Every field of RunConfig that is neither an axis, a setting of the method nor the seed, and changes the meaning
    of a score, not only its last bits."""
    precision = config.get("precision", "fp32")
    on_cpu = config.get("where", {}).get("device", "cpu") == "cpu"
    matched = run.network
    evaluator = config.get("evaluator", {}).get("options", {})
    version = config.get("evaluator_version", 1)
    return {
        "network": matched,
        "preprocessing": config.get("preprocessing", "mean/std"),
        "precision": (run.made_in or precision) if matched else "",
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


def _name_rows(entries: Sequence[EvaluatedRun]) -> None:
    """Give each entry, newest first, the name of its row: the method, with what sets it apart.

    That is what differs from its recipe, preprocessing other than the usual one, and where entries would still have
    the same name, what differs between them: precision, versions, the evaluator's settings and code wherever they
    stand, else within a dataset and IPC, where the newest keeps the name as it is (a recipe may have changed since
    the older ones were run).
    """
    newest_of: dict[Any, EvaluatedRun] = {}
    for entry in entries:
        newest_of.setdefault(entry.kind, entry)
    names = {kind: _settings_shown(entry) for kind, entry in newest_of.items()}

    def same(also: Callable[[EvaluatedRun], Any]) -> Iterable[list[EvaluatedRun]]:
        groups: dict[Any, list[EvaluatedRun]] = {}
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
                for entry in group:
                    names[entry.kind] |= words(entry.traits)
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


def _settings_shown(entry: EvaluatedRun) -> Settings:
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
