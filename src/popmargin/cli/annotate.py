"""popmargin annotate: from a file of preferences to labels by people, in the browser."""

import argparse
import os
import secrets
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from popmargin.errors import ConfigError, import_extra

if TYPE_CHECKING:
    from popmargin.data.schema import Preferences
    from popmargin.label.records import Project
    from popmargin.label.store import LabelStore

ADMIN_VARIABLE = "POPMARGIN_ADMIN_TOKEN"
LOCAL = "me"
_MODULES = ("sqlalchemy", "alembic", "fastapi", "uvicorn", "python_multipart", "markdown_it", "pygments")


def add_parser(subparsers: Any) -> None:
    """Add `annotate` to the command line."""
    parser = subparsers.add_parser("annotate", help="label preferences, or pairs of them, in the browser")
    parser.add_argument("data", nargs="?", help="preferences: a file, a folder or a hub id (default: go on labelling)")
    parser.add_argument("--db", required=True, help="label store: a file, or a postgresql:// address")
    parser.add_argument("--project", metavar="NAME", help="project in the store (default: named after the data)")
    parser.add_argument(
        "--kind",
        choices=("pop", "preference"),
        default="pop",
        help="pop: which of two preferences is the stronger one; preference: which of two responses is better "
        "(default: %(default)s)",
    )
    parser.add_argument("--k", type=int, default=1, help="pop: comparisons for each preference (default: %(default)s)")
    parser.add_argument(
        "--sampling", choices=("random",), default="random", help="pop: how pairs are drawn (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of pairs and of all orders (default: %(default)s)")
    parser.add_argument("--overlap", type=int, default=1, help="people who answer each item (default: %(default)s)")
    parser.add_argument("--guidelines", type=Path, metavar="FILE.md", help="text of the guidelines panel")
    parser.add_argument("--annotators", nargs="+", metavar="NAME", default=[], help="who labels; each gets a link")
    parser.add_argument("--format", default="auto", metavar="NAME", help="format of the data (default: detected)")
    parser.add_argument("--split", help="split of a data set that has several")
    parser.add_argument(
        "--bad-rows",
        choices=("error", "drop"),
        default="error",
        help="stop at unusable rows, or leave them out (default: %(default)s)",
    )
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    server.add_argument("--port", type=int, default=8000, help="port; the next free one if it is taken (default: 8000)")
    server.add_argument("--root-path", default="", metavar="/PREFIX", help="prefix under which a proxy serves it")
    server.add_argument("--admin-token", help=f"opens the admin page (default: ${ADMIN_VARIABLE}, or a new one)")
    server.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.set_defaults(func=_annotate)


def _annotate(args: argparse.Namespace) -> int:
    for module in _MODULES:
        import_extra(module, "label")
    from popmargin.label.store import LabelStore
    from popmargin.label.web.app import create_app
    from popmargin.label.web.serve import address, is_loopback, listen, serve

    admin_token = _admin_token(args)
    if not is_loopback(args.host) and not args.annotators:
        raise ConfigError(
            f"--host {args.host} lets others reach this server, and there is nobody who may. Name the people who "
            "label, --annotators ANNA BEN: each gets an own link. Or leave --host out to label on this machine."
        )
    with LabelStore.open(args.db) as store:
        project = _project(store, args)
        links = _links(store, project, args.annotators or [LOCAL])
        listening = listen(args.host, args.port)
        site = address(args.host, listening) + args.root_path.rstrip("/")
        _announce(store, project, site, links, admin_token)
        own = links.get(LOCAL)
        if own is not None and not args.no_browser:
            webbrowser.open(f"{site}/login/{own}")
        serve(create_app(store, admin_token=admin_token, root_path=args.root_path), listening)
    return 0


def _admin_token(args: argparse.Namespace) -> str:
    given = args.admin_token or os.environ.get(ADMIN_VARIABLE)
    if given is not None and len(given) < 16:
        raise ConfigError(
            f"The admin token has {len(given)} characters; take 16 or more, or leave it out and one is made."
        )
    return given or secrets.token_urlsafe(24)


def _project(store: "LabelStore", args: argparse.Namespace) -> "Project":
    """The project that is wanted: as it is in the store, or made from the data."""
    known = {project.name: project for project in store.projects()}
    name = args.project or (Path(args.data).stem if args.data else None)
    if name is None and len(known) == 1:
        name = next(iter(known))
    if name in known:
        return known[name]
    if args.data is None:
        listed = f" It holds: {', '.join(sorted(known))}; choose one with --project." if known else ""
        raise ConfigError(f"{args.db}: which project? Give the data to label, or a project of the store.{listed}")
    assert name is not None
    from popmargin.data.load import load_preferences

    guidelines = _guidelines(args.guidelines, args.kind)
    preferences = load_preferences(args.data, format=args.format, split=args.split, bad_rows=args.bad_rows)
    if preferences.report.rows_reported:
        print(f"{preferences.report}; see `popmargin data check {args.data}`", file=sys.stderr)
    pairs = draw_pairs(preferences.ids, args.k, args.seed) if args.kind == "pop" else None
    project = store.create_project(name, overlap=args.overlap, seed=args.seed, guidelines=guidelines)
    _fill(store, project, preferences, pairs)
    return project


def _fill(
    store: "LabelStore", project: "Project", preferences: "Preferences", pairs: tuple[list[str], list[str]] | None
) -> None:
    store.import_preferences(project.id, preferences)
    if pairs is None:
        store.add_items(project.id, "preference", preferences.ids)
    else:
        store.add_items(project.id, "pop", *pairs)


def draw_pairs(ids: Sequence[str], k: int, seed: int) -> tuple[list[str], list[str]]:
    """k·N distinct pairs of preferences, uniformly; all pairs where there are no more than that.

    Example:
        >>> len(draw_pairs(["a", "b", "c", "d", "e", "f"], 1, 0)[0]), len(draw_pairs(["a", "b"], 1, 0)[0])
        (6, 1)
    """
    from popmargin.pop.sampling import sample_edges

    count = len(ids)
    if k >= 1 and count >= 2 and 2 * k >= count - 1:
        first, second = np.triu_indices(count, 1)
        order = np.random.default_rng(seed).permutation(len(first))
        return [ids[int(i)] for i in first[order]], [ids[int(i)] for i in second[order]]
    # Of preferences with equal strengths these are the pairs that random sampling asks about, in random order.
    edges = sample_edges(ids, np.zeros(count), sampling="random", k=k, seed=seed)
    return edges.table["stronger"].to_pylist(), edges.table["weaker"].to_pylist()


def _guidelines(path: Path | None, kind: str) -> str:
    if path is None:
        from importlib.resources import files

        return files("popmargin.label.web").joinpath(f"guidelines_{kind}.md").read_text(encoding="utf-8")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the guidelines cannot be read ({error}). Give a text file in UTF-8.") from error


def _links(store: "LabelStore", project: "Project", names: Sequence[str]) -> dict[str, str | None]:
    """Token of each annotator; None for those whose link was made before and still holds."""
    known = {annotator.name: annotator for annotator in store.annotators(project.id)}
    links = dict[str, str | None]()
    for name in names:
        if name not in known:
            links[name] = store.add_annotator(project.id, name)[1]
        else:
            links[name] = store.new_token(known[name].id) if name == LOCAL else None
    return links


def _announce(
    store: "LabelStore", project: "Project", site: str, links: dict[str, str | None], admin_token: str
) -> None:
    progress = store.progress(project.id)
    print(f"{project.name}: {progress.labels_done} of {progress.labels_wanted} labels done, {progress.items} items")
    for name, token in links.items():
        link = f"{site}/login/{token}" if token else "keeps the link made before (a new one: on the admin page)"
        print(f"  {name:<12} {link}")
    print(f"  {'(admin)':<12} {site}/login/{admin_token}")
    print("Every answer is saved at once. Stop with Ctrl-C.", flush=True)
