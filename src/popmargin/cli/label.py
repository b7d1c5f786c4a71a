"""popmargin label: fill a label store, show progress, give people access, export and back up labels."""

import argparse
import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from popmargin.cli import (
    label_annotators,
    label_ask,
    label_assign,
    label_backup,
    label_guidelines,
    label_import_labels,
    label_judge,
    label_next,
    label_rank,
    label_report,
    label_set,
)
from popmargin.cli.data_options import SOURCE_HELP, add_data_arguments, load_unlabelled, seed
from popmargin.cli.gold_options import lease_seconds, read_gold
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.cli.store_options import NEW_PROJECT, add_store_arguments
from popmargin.cli.weights import add_weights, weights_of
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.data.schema import TEXT_COLUMNS, Preferences
from popmargin.errors import ConfigError, counted
from popmargin.files import PARQUET, whole_folder
from popmargin.label.store.address import in_words, may_exist, open_store
from popmargin.pop.edges import PopEdges

EXPORTS = ("edges", "preferences", "dataset", "ratings", "labels", "history", "jsonl")
_BY_SUFFIX = {".parquet": "edges", ".jsonl": "jsonl", ".csv": "labels", "": "dataset"}
_TABLES = (".parquet", ".jsonl", ".csv")


def add_parser(subparsers: Any) -> None:
    """Add `label` and its verbs to the command line."""
    parser = subparsers.add_parser(
        "label",
        help="the label store: import, import-labels, ask, assign, status, annotators, guidelines, set, export, "
        "backup, judge, next, rank, report",
    )
    verbs = parser.add_subparsers(dest="label_verb", required=True, metavar="VERB")
    _add_import(verbs)
    status = verbs.add_parser("status", help="show the progress of projects and annotators")
    add_store_arguments(status, project=False)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(func=_status)
    label_annotators.add_parser(verbs)
    _add_export(verbs)
    label_ask.add_parser(verbs)
    label_assign.add_parser(verbs)
    label_backup.add_parser(verbs)
    label_guidelines.add_parser(verbs)
    label_import_labels.add_parser(verbs)
    label_judge.add_parser(verbs)
    label_next.add_parser(verbs)
    label_rank.add_parser(verbs)
    label_report.add_parser(verbs)
    label_set.add_parser(verbs)


def add_project_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a new project, which `label import` and `annotate` share; see `project_settings`.

    None has a default here: an existing project refuses different settings, but only those that were given.
    """
    parser.add_argument(
        "--kind",
        choices=("pop", "preference", "rating"),
        help="ask which of two preferences is stronger, which of two responses is better, or how good a single "
        "response is (default: pop; for unlabelled data preference, or rating if each prompt has one response)",
    )
    parser.add_argument("--scale", type=int, help="highest rating, 2 to 10, for kind rating (default: 5)")
    parser.add_argument(
        "--pairs-of-pairs",
        choices=("chain", "random", "iterative"),
        help="k·N pairs, of which each shares a preference with the one before, so that people read half as much; k·N "
        "random pairs; or every preference first in k pairs (default: chain)",
    )
    parser.add_argument("--k", type=int, help="pairs per preference (default: 1)")
    parser.add_argument("--seed", type=seed, help="seed of pairs, order and shuffling (default: 0)")
    parser.add_argument("--edges", type=Path, help="use the pairs of these PoP edges instead")
    parser.add_argument(
        "--gold",
        type=Path,
        help="known answers that everybody is asked for: PoP edges for pairs of preferences, preferences with their "
        "labels or ratings for the other kinds; read without the data options",
    )
    parser.add_argument(
        "--training", type=int, metavar="N", help="gold items that everybody gets first, with feedback (default: none)"
    )
    parser.add_argument(
        "--passing", type=float, metavar="SHARE", help="share of them to get right; others wait for you (default: none)"
    )
    parser.add_argument(
        "--wording", help="what the better response is more of, in the question: 'more convincing' (default: better)"
    )
    parser.add_argument(
        "--grades",
        action=argparse.BooleanOptionalAction,
        help="for kind preference: ask by how much the better response is better, in the same key press (default: ask)",
    )
    parser.add_argument("--overlap", type=int, help="people per item (default: 1)")
    parser.add_argument("--repeat-share", type=float, help="share of items repeated to the same annotator (default: 0)")
    parser.add_argument("--lease-minutes", type=float, help="how long an item is reserved (default: 30)")
    parser.add_argument(
        "--guidelines", type=Path, metavar="FILE", help="Markdown file with guidelines (default: those of the kind)"
    )


def project_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `open_project` from `add_project_arguments`, None if an option was not given.

    Raises:
        DataError: a file that cannot be read.
    """
    guidelines = None if args.guidelines is None else label_guidelines.read_guidelines(args.guidelines)
    return {
        "kind": args.kind,
        "sampling": args.pairs_of_pairs,
        "k": args.k,
        "seed": args.seed,
        "edges": None if args.edges is None else PopEdges.load(args.edges),
        "gold": None if args.gold is None else read_gold(args.gold, args.kind or "pop"),
        "scale": args.scale,
        "overlap": args.overlap,
        "repeat_share": args.repeat_share,
        "lease_seconds": lease_seconds(args.lease_minutes),
        "training": args.training,
        "passing": args.passing,
        "guidelines": guidelines,
        "wording": args.wording,
        "grades": args.grades,
    }


def _asks_for_ratings(args: argparse.Namespace) -> bool:
    """Whether the project is, or will be, one of ratings."""
    if args.kind is not None or not may_exist(args.db):
        return args.kind == "rating"
    with open_store(args.db, create=True) as store:
        name = args.project or NEW_PROJECT
        return any(found.name == name and found.scale is not None for found in store.projects())


def load_new_data(args: argparse.Namespace, settings: dict[str, Any]) -> Preferences:
    """The data of a new project, read and checked before creating the store: unusable data must not leave one."""
    # With ties, best_vs_rest has every response in a pair.
    data = load_unlabelled(args, args.data, rated_pairs="best_vs_rest" if _asks_for_ratings(args) else "best_vs_worst")
    if not may_exist(args.db):
        from popmargin.label.projects.draft import draft_items

        draft_items(data, **settings)
    return data


def _add_import(verbs: Any) -> None:
    parser = verbs.add_parser("import", help="create a project from preferences")
    parser.add_argument("data", help=f"preferences: {SOURCE_HELP}")
    add_store_arguments(parser)
    add_project_arguments(parser)
    add_data_arguments(parser, rated=True)
    parser.add_argument(
        "--append",
        action="store_true",
        help="add the rows that the project does not have, also while people label; changed rows are refused, or with "
        "--bad-rows drop left out",
    )
    parser.set_defaults(func=_import)


def _add_export(verbs: Any) -> None:
    parser = verbs.add_parser("export", help="write PoP edges, preferences or labels to files")
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
        "--votes",
        choices=("probability", "whole", "grades"),
        help="preferences: weight of a vote in soft_label: its confidence, always 1, or what its grade is worth, from "
        "overlap, gold items or repeats (default: probability)",
    )
    parser.set_defaults(func=_export)


def _import(args: argparse.Namespace) -> int:
    settings = project_settings(args)
    if args.append:
        return _append(args, settings)
    data = load_new_data(args, settings)
    with open_store(args.db, create=True) as store:
        from popmargin.label.projects.open_project import open_project

        project = open_project(store, data, args.project or NEW_PROJECT, **settings)
    where = f"--db {in_words(args.db)} --project {shlex.quote(project.name)}"
    print(f"next: popmargin label annotators add NAME {where}")
    return 0


def _append(args: argparse.Namespace, settings: dict[str, Any]) -> int:
    for option in ("edges", "gold"):
        if settings.pop(option) is not None:
            raise ConfigError(f"--{option} chooses the items of a new project. Omit it, or import without --append.")
    with open_store(args.db) as store:
        from popmargin.label.projects.append import append_rows

        project = store.project(args.project)
        pairs = "best_vs_rest" if project.scale is not None else "best_vs_worst"
        data = load_unlabelled(args, args.data, rated_pairs=pairs)
        append_rows(store, project, data, drop_changed=args.bad_rows == "drop", **settings)
    return 0


def _status(args: argparse.Namespace) -> int:
    with open_store(args.db) as store:
        from popmargin.label.projects.reach import out_of_reach

        found: list[dict[str, Any]] = []
        for project in store.projects() or [store.project()]:  # which refuses a store without one
            people = [
                {**dataclasses.asdict(who), **dataclasses.asdict(store.progress(project.id, who.id))}
                for who in store.annotators(project.id)
            ]
            progress = dataclasses.asdict(store.progress(project.id))
            found.append(
                {
                    "project": project.name,
                    "preferences": project.preferences,
                    **progress,
                    "annotators": people,
                    "out_of_reach": out_of_reach(store, project),
                }
            )
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0
    for row in found:
        done, wanted = row["labels_done"], row["labels_wanted"]
        share = f" ({done / wanted:.0%})" if wanted else ""
        print(
            f"{row['project']}: {done} of {counted(wanted, 'label')}{share}, {counted(row['items'], 'item')}, "
            f"{row['leased']} open now"
        )
        if row["out_of_reach"]:
            print(f"  {row['out_of_reach']}")
        for who in row["annotators"]:
            state = ("" if who["active"] else ", not active") + (", discarded" if who["discarded"] else "")
            print(f"  {who['name']:<20} {who['kind']}{state}: {who['own_done']} done, {who['own_skipped']} skipped")
    return 0


def _export(args: argparse.Namespace) -> int:
    kind = args.kind or _BY_SUFFIX.get(args.out.suffix.lower())
    if kind is None:
        raise ConfigError(f"{args.out}: this name does not say what to export. Choose --as {', '.join(EXPORTS)}.")
    if args.aggregate and kind != "edges":
        raise ConfigError(f"--aggregate is only for edges, not {kind}.")
    for option in ("strengths", "unrated", "unjudged", "votes"):
        if getattr(args, option) and kind not in ("preferences", "dataset"):
            raise ConfigError(f"--{option} is only for preferences, not {kind}. Use --as preferences.")
    if args.weight and kind not in ("preferences", "dataset"):
        raise ConfigError(
            f"--weight is only for preferences (soft labels, ratings, what counts as wrong), not {kind}. For a scale, "
            "give it to popmargin pop scale."
        )
    if args.without and kind == "history":
        raise ConfigError("--without is not for the history, which has every label. Use --as labels.")
    if args.formulas and args.out.suffix.lower() != ".csv":
        raise ConfigError(f"--formulas is for .csv files, and {args.out} is none: it keeps every text as it is.")
    if args.models and kind in ("ratings", "labels", "history", "jsonl"):
        raise ConfigError(f"--models is only for preferences and edges, not {kind}, which have every label.")
    if args.pool and kind in ("ratings", "labels", "history", "jsonl"):
        raise ConfigError(f"--pool is only for preferences and edges, not {kind}, which are exported one by one.")
    if args.wrong and kind in ("ratings", "labels", "history", "jsonl"):
        raise ConfigError(f"--wrong is only for preferences and edges, not {kind}, which are exported unchanged.")
    suffixes = {"edges": (*PARQUET, ".csv"), "preferences": (*SAVE_SUFFIXES, ".csv")}.get(kind, _TABLES)
    if kind == "dataset":
        _check_new_folder(args.out)
    else:
        check_outputs(args, {"--out": args.out}, suffixes, [args.db.removeprefix("sqlite:///"), args.strengths])
    with open_store(args.db) as store:
        _write(store, store.project(args.project), kind, args)
    return 0


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
    from popmargin.label.export.csv_files import said, write_csv
    from popmargin.label.export.label_files import save_labels
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
        prefs = preferences_of(
            store,
            project,
            strengths=strengths,
            wrong=args.wrong or "swap",
            unrated=args.unrated or "keep",
            unjudged=args.unjudged or "drop",
            votes=args.votes or "probability",
            models=args.models or "fill",
            pool=args.pool,
            without=args.without,
            weights=weights_of(args),
            adjudication=args.adjudication,
        )
        if kind == "dataset":
            with whole_folder(args.out) as partial:
                prefs.dataset.save_to_disk(str(partial))
        elif in_cells:
            table: Any = prefs.dataset.with_format("arrow")[:]
            held = [name for name in prefs.columns if name in TEXT_COLUMNS or table[name].null_count < len(table)]
            guarded = write_csv(args.out, table.select(held).schema, [table], formulas=formulas)
        else:
            prefs.save(args.out)
        step = prefs.report.step(f"preferences of {project.name}", prefs.report.notes)
        print("\n".join([*step.lines(), f"wrote {counted(len(prefs), 'preference')} to {args.out}"]))
    elif kind == "ratings":
        ratings, step = rated_responses(store, project, without=args.without, adjudication=args.adjudication)
        guarded = save_labels(ratings, args.out, formulas=formulas)
        print("\n".join([*step.lines(), f"wrote {counted(ratings.num_rows, 'rated response')} to {args.out}"]))
    else:
        labels = (
            store.label_history(project.id) if kind == "history" else store.labels(project.id, without=args.without)
        )
        guarded = save_labels(labels, args.out, formulas=formulas)
        print(f"wrote {counted(labels.num_rows, 'revision' if kind == 'history' else 'label')} to {args.out}")
    if guarded:
        print(said(guarded))
