"""popmargin label token: tokens of the lead's API."""

import argparse
from typing import Any

from popmargin.cli.store_options import add_store_arguments
from popmargin.label.store.address import open_store
from popmargin.label.store.records import API_ROLES


def add_parser(verbs: Any) -> None:
    """Add `label token` to the command line."""
    parser = verbs.add_parser("token")
    actions = parser.add_subparsers(dest="token_verb", required=True, metavar="{add,list,revoke}")
    adding = actions.add_parser("add", help="make a token; prints it, only once")
    adding.add_argument("name", metavar="NAME", help="what uses it")
    adding.add_argument(
        "--role", choices=API_ROLES, default="read", help="lead also changes projects (default: %(default)s)"
    )
    add_store_arguments(adding, project=False)
    adding.set_defaults(func=_add)
    listing = actions.add_parser("list", help="list the tokens' names, roles and times")
    add_store_arguments(listing, project=False)
    listing.set_defaults(func=_list)
    revoking = actions.add_parser("revoke", help="end a token at once")
    revoking.add_argument("name", metavar="NAME")
    add_store_arguments(revoking, project=False)
    revoking.set_defaults(func=_revoke)


def _add(args: argparse.Namespace) -> int:
    with open_store(args.db) as store:
        found, token = store.api_tokens.add(args.name, args.role)
    print(f"{found.name}\t{found.role}\t{token}")
    return 0


def _list(args: argparse.Namespace) -> int:
    with open_store(args.db) as store:
        for found in store.api_tokens.all():
            print(f"{found.name}\t{found.role}\t{found.created_at:%Y-%m-%d %H:%M} UTC")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    with open_store(args.db) as store:
        store.api_tokens.revoke(args.name)
    print(f"{args.name} is revoked")
    return 0
