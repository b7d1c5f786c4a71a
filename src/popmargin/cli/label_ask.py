"""popmargin label ask: add the comparisons most informative about the strength scale to a project."""

import argparse
from typing import Any

from popmargin.cli.data_options import seed
from popmargin.cli.store_options import add_store_arguments
from popmargin.errors import ConfigError, DataError, counted
from popmargin.label.store.address import in_words, open_store


def add_parser(subparsers: Any) -> None:
    """Add `label ask` to the command line."""
    parser = subparsers.add_parser("ask")
    add_store_arguments(parser)
    parser.add_argument("--n", type=int, default=200, help="comparisons to add (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="random seed (default: 0)")
    parser.set_defaults(func=_ask)


def _ask(args: argparse.Namespace) -> int:
    from popmargin.label.export.pop_edges import pop_edges
    from popmargin.pop.active import ActiveSampler

    if args.n < 1:
        raise ConfigError(f"--n is {args.n}; ask for at least 1 comparison.")
    with open_store(args.db) as store:
        project = store.project(args.project)
        items = [row for batch in store.items(project.id) for row in batch.to_pylist()]
        waiting = [row for row in items if row["kind"] == "pop"]
        if items and not waiting:
            raise DataError(
                f"Project '{project.name}' has items of kind '{items[0]['kind']}', but this adds comparisons of kind "
                "'pop'. Put them in a separate project: "
                f"popmargin label import DATA --db {in_words(args.db)} --project NAME"
            )
        sampler = ActiveSampler(store.preference_columns(project.id)["id"], seed=args.seed)
        edges, _ = pop_edges(store, project)
        if len(edges):
            sampler.tell(edges)
        sampler.pass_over([(row["first"], row["second"]) for row in waiting])
        pairs = sampler.ask(args.n)
        if pairs:
            store.add_items(project.id, "pop", [first for first, _ in pairs], [second for _, second in pairs])
        print(
            f"added {counted(len(pairs), 'comparison')} to project '{project.name}', chosen from "
            f"{counted(len(edges), 'label')}"
        )
        if len(pairs) < args.n:
            print("every other pair is already in the project")
    return 0
