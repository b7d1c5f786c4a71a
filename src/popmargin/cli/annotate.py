"""popmargin annotate: from a file of preferences to labels by people, in the browser."""

import argparse
import os
import secrets
import webbrowser
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from popmargin.cli.data_options import SOURCE_HELP, add_data_arguments
from popmargin.cli.project_options import add_project_arguments, load_new_data, project_settings
from popmargin.cli.store_options import NEW_PROJECT, add_store_arguments
from popmargin.errors import ConfigError, counted, import_extra
from popmargin.label.store.address import may_exist, open_store

if TYPE_CHECKING:
    from popmargin.label.store.label_store import LabelStore
    from popmargin.label.store.records import Project

ADMIN_VARIABLE = "POPMARGIN_ADMIN_TOKEN"
LOCAL = "me"
_MODULES = ("fastapi", "uvicorn", "python_multipart", "markdown_it", "pygments", "httpx")


def add_parser(subparsers: Any) -> None:
    """Add `annotate` to the command line."""
    parser = subparsers.add_parser(
        "annotate", help="label preferences, pairs of preferences, or single responses in the browser"
    )
    parser.add_argument("data", nargs="?", help=f"preferences: {SOURCE_HELP} (default: continue labelling)")
    add_store_arguments(parser, several=True)
    parser.add_argument(
        "--annotators", nargs="+", metavar="NAME", default=[], help="names of the annotators; each gets a link"
    )
    add_project_arguments(parser)
    add_data_arguments(parser, rated=True)
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    server.add_argument("--port", type=int, default=8000, help="port (default: 8000, or the next free one)")
    server.add_argument("--root-path", default="", metavar="/PREFIX", help="path prefix behind a proxy")
    server.add_argument("--admin-token", help=f"token for the admin page (default: ${ADMIN_VARIABLE}, or a new one)")
    server.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.set_defaults(func=_annotate)


def _annotate(args: argparse.Namespace) -> int:
    for module in _MODULES:
        import_extra(module, "label")
    from popmargin.label.projects.open_project import open_project
    from popmargin.label.web.app import create_app
    from popmargin.label.web.serve import address, exit_at_sigterm, is_loopback, listen, serve
    from popmargin.label.web.webhook_sender import Sender

    admin_token = _admin_token(args)
    alone = is_loopback(args.host)
    if not alone and not args.annotators and not may_exist(args.db):
        raise _nobody(args.host)
    names: list[str] = args.project or []
    if args.data is not None and len(names) > 1:
        raise ConfigError(f"DATA makes one project, but --project names {len(names)}. Give one name, or omit DATA.")
    args.project = names[0] if names else None  # of the data
    settings = project_settings(args)
    data = None if args.data is None else load_new_data(args, settings)
    # The address first: an unavailable one should not leave a project behind.
    listening = listen(args.host, args.port)
    with exit_at_sigterm(), listening, open_store(args.db, create=data is not None) as store:
        if data is not None:
            names = [args.project or NEW_PROJECT]
        names = names or [one.name for one in store.projects() if one.state != "archived"] or [store.project().name]
        teams = {name: args.annotators or _team(store, name) for name in names}
        if not alone and not any(teams.values()):
            raise _nobody(args.host)
        projects = [open_project(store, data, name, **settings) for name in names]
        nobody = [LOCAL] if alone else list[str]()
        links = _links(store, {project.id: teams[project.name] or nobody for project in projects})
        site = address(args.host, listening) + args.root_path.rstrip("/")
        _announce(store, projects, site, links, admin_token)
        own = links.get(LOCAL)
        if own and not args.no_browser:
            webbrowser.open(f"{site}/login/{own}")
        with Sender(store):
            serve(create_app(store, admin_token=admin_token, root_path=args.root_path), listening)
    return 0


def _team(store: "LabelStore", name: str) -> list[str]:
    """The people who label a project already; empty if that is only the one on this machine, or it is new."""
    found = [project.id for project in store.projects() if project.name == name]
    people = [who for number in found for who in store.annotators(number) if who.kind == "person" and who.active]
    return [] if all(who.name == LOCAL for who in people) else [who.name for who in people]


def _nobody(host: str) -> ConfigError:
    return ConfigError(
        f"--host {host} lets others reach this server, but there are no annotators. Name them with --annotators ANNA "
        "BEN (each gets a link), or omit --host to label on this machine."
    )


def _admin_token(args: argparse.Namespace) -> str:
    given = args.admin_token or os.environ.get(ADMIN_VARIABLE)
    if given is not None and len(given) < 16:
        raise ConfigError(
            f"The admin token has {counted(len(given), 'character')}; use at least 16, or omit it to generate one."
        )
    return given or secrets.token_urlsafe(24)


def _links(store: "LabelStore", teams: Mapping[int, Sequence[str]]) -> dict[str, str]:
    """New tokens of each annotator, joined over projects; empty for those whose earlier links still work.

    Args:
        store: the store.
        teams: number of a project -> names of its annotators.
    """
    links = dict[str, list[str]]()
    for number, names in teams.items():
        known = {annotator.name: annotator for annotator in store.annotators(number)}
        for name in names:
            tokens = links.setdefault(name, [])
            if name not in known:
                tokens.append(store.add_annotator(number, name)[1])
            elif name == LOCAL:
                tokens.append(store.new_token(known[name].id))
    return {name: ".".join(tokens) for name, tokens in links.items()}


def _announce(
    store: "LabelStore", projects: Sequence["Project"], site: str, links: dict[str, str], admin_token: str
) -> None:
    from popmargin.label.projects.reach import out_of_reach

    for project in projects:
        progress = store.progress(project.id)
        print(
            f"{project.name}: {progress.labels_done} of {counted(progress.labels_wanted, 'label')} done, "
            f"{counted(progress.items, 'item')}"
        )
        if far := out_of_reach(store, project):
            print(f"  {far}")
    for name, token in links.items():
        link = f"{site}/login/{token}" if token else "keeps the existing link (create a new one on the admin page)"
        print(f"  {name:<12} {link}")
    print(f"  {'(admin)':<12} {site}/login/{admin_token}")
    print("Every answer is saved at once. Stop with Ctrl-C.", flush=True)
