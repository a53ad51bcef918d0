"""What there is to choose from: methods, networks, protocols, datasets."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer
from typer import Argument

from dambench.cli.arguments import Commands
from dambench.cli.options import Json, Settings
from dambench.cli.output import say, table
from dambench.core import config, registry, sanitize
from dambench.core.contracts import Method
from dambench.core.protocol import PRESETS
from dambench.core.registry import P, Plugins
from dambench.report.wording import augmentation, mixing

data_app = Commands(rich_markup_mode=None, help="Real datasets.")
methods_app = Commands(rich_markup_mode=None)


@methods_app.callback(invoke_without_command=True)
def methods(context: typer.Context, as_json: Json = False) -> None:
    """The methods, their options and recipes."""
    if context.invoked_subcommand is not None:
        return
    plugins = _with_notes(registry.load_all("methods"))
    if as_json:
        facts = {
            name: {
                "paper": module.PAPER,
                "matches_on_network": module.MATCHES_ON_NETWORK,
                "options": msgspec.json.schema(module.Options),
                "recipes": [msgspec.to_builtins(recipe) for recipe in module.RECIPES],
            }
            for name, module in plugins.usable.items()
        }
        print(json.dumps(_entries(plugins, facts)))
        return
    table(
        ["method", "what", "paper", "options and their defaults", "--recipe"],
        [[name, m.headline, m.PAPER, _options(m), _recipes(m)] for name, m in plugins.usable.items()]
        + [[name, fault, "", "", ""] for name, fault in plugins.faults.items()],
    )


@methods_app.command("check")
def check_method(
    name: Annotated[str, Argument(metavar="NAME", help="A method, of ours or of another package.")],
    settings: Settings = None,
) -> int:
    """Check that a method keeps its contract and every promise, and say what it does not (exit code 1)."""
    from dambench.testing.methods import METHOD_PROMISES, method_faults

    with registry.stdout_to_stderr():
        faults = method_faults(name, config.settings(settings or []).get("method"))
    for fault in faults:
        print(sanitize.display(fault, 1000))
    if not faults:
        print(
            f"{registry.find('methods', name)} keeps its contract and all {len(METHOD_PROMISES)} promises of methods."
        )
    return 1 if faults else 0


def networks(as_json: Json = False) -> None:
    """The networks, and how their names are made."""
    from dambench.networks import POOLS, parts

    plugins = _with_notes(registry.load_all("networks"))
    if as_json:
        facts = {
            name: {"parts": parts(module), "options": msgspec.json.schema(module.Options), "members": []}
            for name, module in plugins.usable.items()
        }
        pools = [
            {"name": name, "what": what, "parts": {}, "options": {}, "members": members.split(), "fault": ""}
            for name, (what, members) in POOLS.items()
        ]
        print(json.dumps(_entries(plugins, facts) + pools))
        return
    table(
        ["network", "what", "parts of a name, in any order"],
        [[name, module.headline, " ".join(parts(module).values())] for name, module in plugins.usable.items()]
        + [[name, fault, ""] for name, fault in plugins.faults.items()],
    )
    print()
    table(
        ["--evaluate-on", "the papers' pools", "networks"],
        [[name, what, members.replace(" ", ", ")] for name, (what, members) in POOLS.items()],
    )


def protocols(as_json: Json = False) -> None:
    """The protocols: how networks are trained and tested."""
    if as_json:
        print(json.dumps([msgspec.to_builtins(p) | {"sha256": p.sha256} for p in PRESETS.values()]))
        return
    table(
        ["protocol", "epochs", "whole", "batch", "rate", "augmentation", "source"],
        [
            [
                p.label,
                p.synthetic.epochs,
                p.whole.epochs,
                p.batch,
                p.lr,
                " + ".join(
                    filter(None, ["" if not p.augmentation else augmentation(p).partition(",")[0], mixing(p)])
                ).replace(" of every batch", "")
                or "none",
                p.source,
            ]
            for p in PRESETS.values()
        ],
    )


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """The datasets, and which are prepared."""
    from dambench import datasets

    cards = datasets.prepared()
    plugins = _with_notes(registry.load_all("datasets"))
    facts = {
        name: {
            "source": module.SOURCE,
            "options": msgspec.json.schema(module.Options),
            "files": list(module.FILES),
            "instead": module.INSTEAD,
            "prepared": [msgspec.to_builtins(card) for card in cards if card.name == name],
        }
        for name, module in plugins.usable.items()
    }
    entries = _entries(plugins, facts)
    if as_json:
        print(json.dumps(entries))
        return
    rows = []
    for entry in entries:
        ready = []
        for c in entry["prepared"]:
            ready.append(
                f"{c['label']}: {sum(c['train_counts'])} + {sum(c['test_counts'])} images, "
                f"{c['channels']}×{c['height']}×{c['width']}, {len(c['classes'])} classes"
            )
            ready += [f"  note: {note}" for note in c["notes"]]
        missing = "" if entry["fault"] else "not yet"
        rows += [[entry["name"], entry["what"], (ready or [missing])[0]], *(["", "", more] for more in ready[1:])]
    table(["dataset", "what", "prepared"], rows)


def _with_notes(plugins: Plugins[P]) -> Plugins[P]:
    """Say which plug-ins from outside are not used. Returns the same plug-ins."""
    for sentence in plugins.unused:
        say(f"note: {sentence}")
    return plugins


def _entries(plugins: Plugins[P], facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The plug-ins for programs. One that cannot be used has no facts, and a sentence in the place of what it is."""
    usable = [
        {"name": name, "what": plugins.usable[name].headline, **each, "fault": ""} for name, each in facts.items()
    ]
    nothing = {key: type(fact)() for each in facts.values() for key, fact in each.items()}
    return usable + [{"name": name, "what": fault, **nothing, "fault": fault} for name, fault in plugins.faults.items()]


def _recipes(module: Method) -> str:
    """The recipes that have to be asked for, and their datasets."""
    called: dict[str, list[str]] = {}
    for recipe in module.RECIPES:
        if recipe.name != "default":
            called.setdefault(recipe.name, []).extend(recipe.datasets or ["any"])
    return ", ".join(f"{name} ({'any' if 'any' in of else ', '.join(of)})" for name, of in called.items())


def _options(module: Method) -> str:
    usual = module.Options()
    return ", ".join(f"{name} {getattr(usual, name)}" for name in module.Options.__struct_fields__)
