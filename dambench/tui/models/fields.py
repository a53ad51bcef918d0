"""Fields: the values that a field of the form offers, and the line about it."""

from collections.abc import Iterable

from dambench.core.overrides import changeable
from dambench.core.protocol import Protocol
from dambench.tui.checker import Answer
from dambench.tui.models import request
from dambench.tui.models.catalogue import Catalogue, OptionSchema, prepared
from dambench.tui.models.preflight import whereabouts
from dambench.tui.models.request import Form


def choices(name: str, form: Form, catalogue: Catalogue, devices: int) -> list[tuple[str, str]]:
    """Label and value of each value that a field offers; none: any text may be typed.

    Args:
        devices: GPUs of this machine.
    """
    match name:
        case "method":
            return [(method, method) for method in catalogue.methods]
        case "dataset":
            here, data = prepared(), form.get("data", "")
            return [(f"{n}{whereabouts(n, here, catalogue, data)}", n) for n in catalogue.datasets]
        case "protocol":
            return [("quick (default)", ""), *((n, n) for n in catalogue.protocols)]
        case "device":
            return [("auto", ""), ("cpu", "cpu"), *((n, n) for n in map("cuda:{}".format, range(devices)))]
        case "recipe":
            default, *others = catalogue.recipes(form.get("method", "")) or ["default"]
            return [(default, ""), *((n, n) for n in others)]
    field = request.fields().get(name)
    if field is None:
        schema = _schema(name, form, catalogue)
        return _offered("the recipe's", map(str, schema.enum if schema else ()))
    if field.kind == "boolean":
        return [("off", ""), ("on", "on")]
    return _offered(field.default, field.choices)


def hint(name: str, form: Form, catalogue: Catalogue, answer: Answer) -> str:
    """The line about a field: its meaning, its bounds and where its value comes from."""
    if name == request.CHANGES:
        return f"Fields of the protocol, as lr=0.02 synthetic.epochs=400, of: {', '.join(changeable(Protocol))}"
    if field := request.fields().get(name):
        return field.help
    schema = _schema(name, form, catalogue)
    if schema is None:
        return ""
    group, _, option = name.partition(".")
    parts = [f"{option}: {schema.meaning}" if schema.meaning else option]
    parts += [schema.bounds] if schema.bounds else []
    if group == "method" and option in answer.get("standard", {}):
        value, recipe = answer["standard"][option], answer.get("recipe") or {"options": ()}
        recommended = option in recipe["options"]
        parts.append(f"recipe {value}: {recipe_source(answer)}" if recommended else f"default {value}")
    return "; ".join(parts)


def recipe_source(answer: Answer) -> str:
    """The source of the recipe of a checked request; empty: it has none."""
    recipe = answer.get("recipe")
    return str(recipe["source"]) if recipe else ""


def _schema(name: str, form: Form, catalogue: Catalogue) -> OptionSchema | None:
    group, dot, option = name.partition(".")
    return catalogue.options(group, form.get(group, "")).get(option) if dot else None


def _offered(default: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Values to choose from, the default first, which is empty; nothing, where any value may be typed."""
    others = [(value, value) for value in values if value != default]
    return [(default, ""), *others] if others else []
