"""Options of a new project and the data for it, which `label import` and `annotate` share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from popmargin.cli.criteria_option import read_criteria
from popmargin.cli.data_options import load_unlabelled, seed
from popmargin.cli.gold_options import lease_seconds, read_gold
from popmargin.cli.label_guidelines import read_guidelines
from popmargin.cli.store_options import NEW_PROJECT
from popmargin.data.column_names import column_names
from popmargin.label.language.page_texts import read_language
from popmargin.label.store.address import may_exist, open_store
from popmargin.pop.edges import PopEdges

if TYPE_CHECKING:
    from popmargin.data.schema import Preferences


def add_project_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a new project, which `label import` and `annotate` share; see `project_settings`.

    None has a default here: an existing project refuses different settings, but only those that were given.
    """
    parser.add_argument(
        "--kind",
        choices=("pop", "preference", "rating", "rank"),
        help="ask which of two preferences is stronger, which of two responses is better, or how good a single "
        "response is (default: pop; for unlabelled data preference, or rating if each prompt has one response)",
    )
    parser.add_argument(
        "--rank",
        type=int,
        metavar="M",
        help="ask people to order M preferences on one screen, 3 to 6, by how much better the preferred response is "
        "(default: 4 with kind rank)",
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
        help="known answers that everybody is asked for: PoP edges for pairs of preferences, a column `order` of "
        "ids for rankings, preferences with their labels or ratings for the other kinds; read without the data options",
    )
    parser.add_argument(
        "--training", type=int, metavar="N", help="gold items that everybody gets first, with feedback (default: none)"
    )
    parser.add_argument(
        "--passing",
        type=float,
        metavar="SHARE",
        help="share of them to get right, in rankings of their comparisons; others wait for you (default: none)",
    )
    parser.add_argument(
        "--wording", help="what the better response is more of, in the question: 'more convincing' (default: better)"
    )
    parser.add_argument(
        "--grades",
        action=argparse.BooleanOptionalAction,
        help="for kind preference: ask by how much the better response is better, in the same key press (default: ask)",
    )
    parser.add_argument(
        "--criteria",
        nargs="+",
        metavar="'NAME: QUESTION'",
        help="several questions about each task, for kind preference or rating, or a YAML file of names and questions; "
        "the first one decides in exports (default: a single question)",
    )
    parser.add_argument(
        "--both-bad",
        action=argparse.BooleanOptionalAction,
        help="for kind preference: offer the answer that both responses are bad (default: not)",
    )
    parser.add_argument(
        "--show",
        type=column_names,
        metavar="COLUMN,…",
        help="columns of the data that people see with a task, such as stance,source (default: none)",
    )
    parser.add_argument("--overlap", type=int, help="people per item (default: 1)")
    parser.add_argument("--repeat-share", type=float, help="share of items repeated to the same annotator (default: 0)")
    parser.add_argument("--lease-minutes", type=float, help="how long an item is reserved (default: 30)")
    parser.add_argument(
        "--language",
        metavar="FILE",
        help="texts of the annotators' pages: de, or a file made from those of `label language` (default: en)",
    )
    parser.add_argument(
        "--guidelines", type=Path, metavar="FILE", help="Markdown file with guidelines (default: those of the kind)"
    )


def project_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `open_project` from `add_project_arguments`, None if an option was not given.

    Raises:
        DataError: a file that cannot be read.
    """
    guidelines = None if args.guidelines is None else read_guidelines(args.guidelines)
    kind = args.kind or ("pop" if args.rank is None else "rank")
    return {
        "kind": args.kind,
        "sampling": args.pairs_of_pairs,
        "k": args.k,
        "seed": args.seed,
        "edges": None if args.edges is None else PopEdges.load(args.edges),
        "gold": None if args.gold is None else read_gold(args.gold, kind),
        "scale": args.scale,
        "rank": args.rank,
        "overlap": args.overlap,
        "repeat_share": args.repeat_share,
        "lease_seconds": lease_seconds(args.lease_minutes),
        "training": args.training,
        "passing": args.passing,
        "guidelines": guidelines,
        "wording": args.wording,
        "grades": args.grades,
        "shown": args.show,
        "both_bad": args.both_bad,
        "criteria": None if args.criteria is None else read_criteria(args.criteria),
        "language": None if args.language is None else read_language(args.language),
    }


def _asks_for_ratings(args: argparse.Namespace) -> bool:
    """Whether the project is, or will be, one of ratings."""
    if args.kind is not None or not may_exist(args.db):
        return args.kind == "rating"
    with open_store(args.db, create=True) as store:
        name = args.project or NEW_PROJECT
        return any(found.name == name and found.scale is not None for found in store.projects())


def load_new_data(args: argparse.Namespace, settings: dict[str, Any]) -> "Preferences":
    """The data of a new project, read and checked before creating the store: unusable data must not leave one."""
    # With ties, best_vs_rest has every response in a pair.
    data = load_unlabelled(args, args.data, rated_pairs="best_vs_rest" if _asks_for_ratings(args) else "best_vs_worst")
    if not may_exist(args.db):
        from popmargin.label.projects.draft import draft_items

        draft_items(data, **settings)
    return data
