"""`popmargin schema`."""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "schema",
        help="write the JSON schema of a configuration, for editors",
        description="Write the JSON schema of the configuration of a run, a study, rounds, recommenders, a budget "
        "study or a best-of-n study, with which an editor completes, explains and checks YAML: popmargin schema > "
        "popmargin.schema.json",
    )
    parser.add_argument("of", nargs="?", choices=list(_SCHEMAS), default="run", help="of which (default run)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    schema = _SCHEMAS[args.of]()
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1))
    return 0


def run_schema() -> dict[str, Any]:
    """The schema of a run, with the options of every registered objective, regularizer, token selector and margin."""
    from popmargin.config import RunConfig
    from popmargin.config.described import schema_of
    from popmargin.margin_sources.base import MARGIN_SOURCES
    from popmargin.objectives.base import OBJECTIVES
    from popmargin.regularizers.base import REGULARIZERS
    from popmargin.tasks.base import TASKS
    from popmargin.tokens.base import TOKEN_SELECTORS

    schema, null, text = schema_of(RunConfig), {"type": "null"}, {"type": "string"}
    parts = schema["properties"]
    parts["task"] |= {"anyOf": [{"enum": TASKS.names()}, text, _named("name", TASKS)]}
    parts["objective"] |= _named("name", OBJECTIVES)
    parts["regularizers"]["items"] = _named("name", REGULARIZERS, {"weight": {"type": "number"}})
    parts["tokens"]["anyOf"] = [_named("name", TOKEN_SELECTORS, {"reference": text}), null]
    parts["margin"]["anyOf"] = [_named("source", MARGIN_SOURCES), null]
    return schema


def study_schema() -> dict[str, Any]:
    """The schema of a study: its own fields, the shared settings of its runs, and its arms."""
    from popmargin.config.described import schema_of
    from popmargin.study.config import StudyConfig

    schema, base = schema_of(StudyConfig), run_schema()
    schema["$defs"] |= base.pop("$defs")
    label = {"label": {"type": "string", "description": "What the report calls the arm."}}
    schema["properties"]["base"] |= base
    arm = base | {"description": "What differs in this arm.", "properties": base["properties"] | label}
    schema["properties"]["arms"]["additionalProperties"] = arm
    return schema


def budget_schema() -> dict[str, Any]:
    """The schema of a budget study."""
    from popmargin.config.described import schema_of
    from popmargin.study.budget.budget_config import BudgetConfig

    return schema_of(BudgetConfig)


def best_of_n_schema() -> dict[str, Any]:
    """The schema of a best-of-n study."""
    from popmargin.config.described import schema_of
    from popmargin.study.best_of_n.best_of_n_config import BestOfNConfig

    return schema_of(BestOfNConfig)


def rounds_schema() -> dict[str, Any]:
    """The schema of rounds: their own fields, the options of every recipe, and what the runs share."""
    from popmargin.config.described import schema_of
    from popmargin.recipes.base import RECIPES
    from popmargin.rounds.rounds_config import RoundsConfig

    schema, base = schema_of(RoundsConfig), run_schema()
    schema["$defs"] = schema.get("$defs", {}) | base.pop("$defs")
    schema["properties"]["base"] |= base
    schema["properties"]["recipe"] |= _named("name", RECIPES)
    return schema


def recommend_schema() -> dict[str, Any]:
    """The schema of compared recommenders: their own fields, what the models share, and the arms."""
    from popmargin.config.described import schema_of
    from popmargin.recommend.baselines.base import BASELINES
    from popmargin.study.recommenders.recommend_config import RecommendConfig

    schema, base = schema_of(RecommendConfig), run_schema()
    schema["$defs"] = schema.get("$defs", {}) | base.pop("$defs")
    schema["properties"]["base"] |= base
    more: dict[str, Any] = {
        "label": {"type": "string", "description": "What the report calls the arm."},
        "vectors": schema["properties"]["vectors"],
        "recommender": {"anyOf": [{"enum": BASELINES.names()}, {"type": "string"}]},
        "options": {"type": "object", "description": "Of the recommender."},
    }
    arm = base | {"description": "A recommender, or what differs in a model.", "properties": base["properties"] | more}
    schema["properties"]["arms"]["additionalProperties"] = arm
    return schema


def _named(key: str, registry: Any, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schema of a mapping with a component's name and options; unregistered components may have any options.

    Args:
        key: the key with the name.
        registry: the components' registry.
        more: schemas of further keys that all of them take.
    """
    from popmargin.config.described import fields_of, schema_of

    def schema(field: Any) -> dict[str, Any]:
        if field.section is not None:
            return schema_of(field.section) | {"description": field.sentence}
        return dict(field.schema) | {"description": field.sentence, "default": field.default}

    rules: list[Any] = []
    for name in registry.names():
        own = {field.name: schema(field) for field in fields_of(registry.get(name).options)}
        allowed = {key: {}, **(more or {}), **own}
        chosen = {"properties": {key: {"const": name}}, "required": [key]}
        rules.append({"if": chosen, "then": {"properties": allowed, "additionalProperties": False}})
    name = {"anyOf": [{"enum": registry.names()}, {"type": "string"}]}
    return {"type": "object", "properties": {key: name}, "allOf": rules}


_SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "run": run_schema,
    "study": study_schema,
    "rounds": rounds_schema,
    "recommend": recommend_schema,
    "budget": budget_schema,
    "best-of-n": best_of_n_schema,
}
