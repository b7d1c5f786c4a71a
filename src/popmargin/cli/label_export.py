"""popmargin label export: write PoP edges, preferences or labels to files."""

import argparse
import json
from pathlib import Path
from typing import Any

from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.store_options import add_store_arguments
from popmargin.cli.weights import add_weights, weights_of
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.data.schema import TEXT_COLUMNS
from popmargin.errors import ConfigError, counted
from popmargin.files import PARQUET, whole_file, whole_folder
from popmargin.label.store.address import open_store

EXPORTS = ("edges", "preferences", "dataset", "ratings", "labels", "history", "jsonl")
_BY_SUFFIX = {".parquet": "edges", ".jsonl": "jsonl", ".csv": "labels", "": "dataset"}
_TABLES = (".parquet", ".jsonl", ".csv")


def add_parser(verbs: Any) -> None:
    """Add `label export` to the command line."""
    parser = verbs.add_parser("export")
    add_store_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="file or folder to write")
    add_overwrite(parser)
    parser.add_argument(
        "--as",
        dest="kind",
        choices=EXPORTS,
        help="edges: what `train` reads, as .parquet (or .csv, to look at); preferences: the data with votes and "
        "strengths, as .parquet, .jsonl, .jsonl.gz or .csv; dataset: the same as a `datasets` folder; ratings: each "
        "rated response with its mean; labels: current labels; history: all their revisions, these three as "
        ".parquet, .jsonl or .csv; jsonl: labels as JSONL (default: by file name: .parquet edges, .jsonl and .csv "
        "labels, no suffix dataset)",
    )
    parser.add_argument(
        "--formulas",
        choices=("guard", "keep"),
        help="CSV: texts that begin with = + - @, which spreadsheets would run: put an apostrophe before them, or keep "
        "them as they are (default: guard)",
    )
    parser.add_argument(
        "--aggregate",
        choices=("majority", "weighted"),
        help="edges: one per item instead of one per label; majority counts all labels equally, weighted uses each "
        "label's confidence (1 if none was given)",
    )
    parser.add_argument(
        "--strengths", type=Path, help="preferences: a file from `pop scale`, or Parquet with id and strength"
    )
    parser.add_argument(
        "--wrong",
        choices=("swap", "drop", "keep"),
        help="preferences that most annotators mark wrong: swap chosen and rejected, drop them, or keep them as is; "
        "edges exclude comparisons with them unless they are kept (default: swap)",
    )
    parser.add_argument(
        "--unrated",
        choices=("keep", "drop"),
        help="preferences in a rating project with an unrated response: keep them without ratings, or drop them "
        "(default: keep)",
    )
    parser.add_argument(
        "--without", nargs="+", metavar="NAME", default=[], help="leave out the labels of these annotators"
    )
    add_weights(parser)
    parser.add_argument(
        "--adjudication",
        choices=("wins", "ignore"),
        default="wins",
        help="of items that an adjudicator has decided, use only that label, or only the others; labels and history "
        "have all (default: %(default)s)",
    )
    parser.add_argument(
        "--models",
        choices=("fill", "equal"),
        help="edges and preferences: leave out labels of judges and rewards on items that a person has decided (fill), "
        "or count them like a person's (equal) (default: fill)",
    )
    parser.add_argument(
        "--pool",
        choices=("dawid-skene",),
        help="edges and preferences: one probability for each item from all its votes, each labeller counting by how "
        "often it is right; models count only where no person has decided, unless --models equal (default: the mean)",
    )
    parser.add_argument(
        "--unjudged",
        choices=("drop", "keep"),
        help="preferences of which neither the data nor a label says which response is better: leave them out, or keep "
        "them in the imported order (default: drop)",
    )
    parser.add_argument(
        "--criterion", metavar="NAME", help="preferences, ratings: the criterion that decides (default: the first)"
    )
    parser.add_argument(
        "--both-bad",
        choices=("drop", "keep"),
        help="preferences that most who judged them call both bad: leave them out, or keep what the others say "
        "(default: drop); the column both_bad has the share",
    )
    parser.add_argument(
        "--votes",
        choices=("probability", "whole", "grades"),
        help="preferences: weight of a vote in soft_label: its confidence, always 1, or what its grade is worth, from "
        "overlap, gold items or repeats (default: probability)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="preferences: take the confidence of each model as the chance that people agree with it, by a logistic "
        "map from the items that both have decided (30 or more), which is written to OUT.calibration.json or the data "
        "card (default: as the model says)",
    )
    hub = parser.add_argument_group("data card, for --as dataset")
    hub.add_argument(
        "--licence", metavar="ID", help="licence that its README.md names, such as cc-by-4.0 (default: unknown)"
    )
    hub.add_argument("--push-to-hub", metavar="NAME", help="write it on the Hugging Face hub too, as NAME or USER/NAME")
    hub.add_argument("--public", action="store_true", help="let everybody read a new one there (default: only you)")
    parser.set_defaults(func=_export)


def _export(args: argparse.Namespace) -> int:
    kind = args.kind or _BY_SUFFIX.get(args.out.suffix.lower())
    if kind is None:
        raise ConfigError(f"{args.out}: this name does not say what to export. Choose --as {', '.join(EXPORTS)}.")
    if args.aggregate and kind != "edges":
        raise ConfigError(f"--aggregate is only for edges, not {kind}.")
    for option in ("strengths", "unrated", "unjudged", "votes", "both_bad"):
        if getattr(args, option) and kind not in ("preferences", "dataset"):
            raise ConfigError(
                f"--{option.replace('_', '-')} is only for preferences, not {kind}. Use --as preferences."
            )
    if args.calibrate and kind not in ("preferences", "dataset"):
        raise ConfigError(f"--calibrate is only for preferences, not {kind}. Use --as preferences.")
    if args.calibrate and (args.pool or args.votes not in (None, "probability")):
        flag = "--pool" if args.pool else f"--votes {args.votes}"
        raise ConfigError(f"--calibrate is about confidences, which {flag} does not read. Remove one of them.")
    if args.weight and kind not in ("preferences", "dataset"):
        raise ConfigError(
            f"--weight is only for preferences (soft labels, ratings, what counts as wrong), not {kind}. For a scale, "
            "give it to popmargin pop scale."
        )
    if args.without and kind == "history":
        raise ConfigError("--without is not for the history, which has every label. Use --as labels.")
    if args.formulas and args.out.suffix.lower() != ".csv":
        raise ConfigError(f"--formulas is for .csv files, and {args.out} is none: it keeps every text as it is.")
    if args.criterion and kind not in ("preferences", "dataset", "ratings"):
        raise ConfigError(f"--criterion is only for preferences and ratings, not {kind}, which has every criterion.")
    if args.models and kind in ("ratings", "labels", "history", "jsonl"):
        raise ConfigError(f"--models is only for preferences and edges, not {kind}, which have every label.")
    if args.pool and kind in ("ratings", "labels", "history", "jsonl"):
        raise ConfigError(f"--pool is only for preferences and edges, not {kind}, which are exported one by one.")
    if args.wrong and kind in ("ratings", "labels", "history", "jsonl"):
        raise ConfigError(f"--wrong is only for preferences and edges, not {kind}, which are exported unchanged.")
    if kind != "dataset" and (args.licence or args.push_to_hub):
        raise ConfigError(f"--licence and --push-to-hub are for data with a card, not {kind}. Use --as dataset.")
    _check_hub(args)
    suffixes = {"edges": (*PARQUET, ".csv"), "preferences": (*SAVE_SUFFIXES, ".csv")}.get(kind, _TABLES)
    if kind == "dataset":
        _check_new_folder(args.out)
    else:
        if args.calibrate and _maps(args.out).exists() and not args.overwrite:
            raise ConfigError(f"{_maps(args.out)} exists. Choose another --out, or pass --overwrite.")
        check_outputs(args, {"--out": args.out}, suffixes, [args.db.removeprefix("sqlite:///"), args.strengths])
    with open_store(args.db) as store:
        _write(store, store.project(args.project), kind, args)
    return 0


def _check_hub(args: argparse.Namespace) -> None:
    if args.public and not args.push_to_hub:
        raise ConfigError("--public is about a data set on the hub: add --push-to-hub NAME, or omit it.")
    if args.licence:
        from popmargin.label.export.data_card import check_licence

        check_licence(args.licence)
    if args.push_to_hub:
        from popmargin.label.export.hub_push import check_name

        check_name(args.push_to_hub)


def _check_new_folder(path: Path) -> None:
    if path.name.endswith(SAVE_SUFFIXES):
        raise ConfigError(
            f"{path}: a dataset is a folder, but this is a file name. Use --as preferences, or omit the suffix."
        )
    if path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"{path} is a folder that is not empty. Choose a new one.")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file, but a dataset is a folder. Choose a new one.")


def _write(store: Any, project: Any, kind: str, args: argparse.Namespace) -> None:
    from popmargin.label.export.calibrated_models import calibrations_of
    from popmargin.label.export.criteria_columns import criteria_labels
    from popmargin.label.export.csv_files import said, write_csv
    from popmargin.label.export.label_files import save_labels
    from popmargin.label.export.ordered_ids import with_orders
    from popmargin.label.export.pop_edges import pop_edges
    from popmargin.label.export.preferences import preferences_of, read_strengths
    from popmargin.label.export.rated_responses import rated_responses
    from popmargin.label.projects.same_project import item_kinds

    for option, needed in (("votes", "preference"), ("unrated", "rating")):
        if getattr(args, option) and needed not in item_kinds(store, project):
            raise ConfigError(
                f"--{option} is for items of kind '{needed}', of which project '{project.name}' has none."
            )

    formulas, guarded = args.formulas or "guard", 0
    in_cells = args.out.suffix.lower() == ".csv"
    if kind == "edges":
        edges, account = pop_edges(
            store,
            project,
            aggregate=args.aggregate,
            wrong=args.wrong or "swap",
            without=args.without,
            adjudication=args.adjudication,
            models=args.models or "fill",
            pool=args.pool,
        )
        if in_cells:
            guarded = save_labels(edges.table, args.out, formulas=formulas)
        else:
            edges.save(args.out)
        print(account)
        print(f"wrote {counted(len(edges), 'edge')} to {args.out}")
    elif kind in ("preferences", "dataset"):
        strengths = None if args.strengths is None else read_strengths(args.strengths)
        card = ""
        chosen: dict[str, Any] = {name: getattr(args, name) for name in ("without", "adjudication", "criterion")}
        calibration = calibrations_of(store, project, **chosen) if args.calibrate else None
        prefs = preferences_of(
            store,
            project,
            strengths=strengths,
            wrong=args.wrong or "swap",
            unrated=args.unrated or "keep",
            unjudged=args.unjudged or "drop",
            both_bad=args.both_bad or "drop",
            votes=args.votes or "probability",
            models=args.models or "fill",
            pool=args.pool,
            weights=weights_of(args),
            calibration=calibration,
            **chosen,
        )
        if kind == "dataset":
            card = _card(store, project, prefs, args, calibration)
            with whole_folder(args.out) as partial:
                prefs.dataset.save_to_disk(str(partial))
                (partial / "README.md").write_text(card, encoding="utf-8")
        elif in_cells:
            table: Any = prefs.dataset.with_format("arrow")[:]
            held = [name for name in prefs.columns if name in TEXT_COLUMNS or table[name].null_count < len(table)]
            guarded = write_csv(args.out, table.select(held).schema, [table], formulas=formulas)
        else:
            prefs.save(args.out)
        if calibration is not None and kind == "preferences":
            with whole_file(_maps(args.out)) as partial:
                found = [one.to_dict() for one in calibration.values()]
                partial.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        step = prefs.report.step(f"preferences of {project.name}", prefs.report.notes)
        print("\n".join([*step.lines(), f"wrote {counted(len(prefs), 'preference')} to {args.out}"]))
        if args.push_to_hub:
            from popmargin.label.export.hub_push import push

            print(f"pushed to {push(prefs, card, args.push_to_hub, public=args.public)}")
    elif kind == "ratings":
        ratings, step = rated_responses(
            store, project, without=args.without, adjudication=args.adjudication, criterion=args.criterion
        )
        guarded = save_labels(ratings, args.out, formulas=formulas)
        print("\n".join([*step.lines(), f"wrote {counted(ratings.num_rows, 'rated response')} to {args.out}"]))
    else:
        labels = (
            store.label_history(project.id) if kind == "history" else store.labels(project.id, without=args.without)
        )
        guarded = save_labels(with_orders(criteria_labels(labels, project)), args.out, formulas=formulas)
        print(f"wrote {counted(labels.num_rows, 'revision' if kind == 'history' else 'label')} to {args.out}")
    if guarded:
        print(said(guarded))


def _maps(out: Path) -> Path:
    """The file beside an export with the maps of its models' confidences."""
    return out.with_name(f"{out.name}.calibration.json")


def _card(store: Any, project: Any, prefs: Any, args: argparse.Namespace, calibration: Any) -> str:
    """The data card, with the options that change what is exported."""
    from popmargin.label.export.data_card import UNKNOWN, data_card

    named = ("wrong", "unrated", "unjudged", "both_bad", "criterion", "votes", "models", "pool", "adjudication")
    options = {name: value for name in named if (value := getattr(args, name))}
    options |= {} if calibration is None else {"calibrate": "; ".join(one.note() for one in calibration.values())}
    return data_card(store, project, prefs, licence=args.licence or UNKNOWN, without=args.without, options=options)
