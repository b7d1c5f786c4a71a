"""popmargin label annotators: add people, give them tokens, end their access, and say whose labels count."""

import argparse
import shlex
import sys
from typing import Any

from popmargin.cli.change_store import change_store
from popmargin.cli.store_options import add_store_arguments, user
from popmargin.errors import DataError, counted
from popmargin.label.store.address import in_words, open_store


def add_parser(verbs: Any) -> None:
    """Add `label annotators` to the command line."""
    parser = verbs.add_parser("annotators")
    actions = parser.add_subparsers(
        dest="annotators_verb",
        required=True,
        metavar="{add,list,token,admit,adjudicate,lead,quota,weight,deactivate,discard,activate,forget}",
    )
    for name, summary, act in (
        ("add", "add people; prints each one's token, only once", _add),
        ("token", "give someone a new token; the old one stops working", _token),
        ("admit", "let someone go on who got too few training items right", _admit),
        ("deactivate", "deactivate someone; their labels stay", _deactivate),
        ("discard", "deactivate someone whose labels shall not count; others get their items", _discard),
        ("activate", "activate someone again; their labels count again", _activate),
        ("forget", "remove someone's name, notes and access for good; labels stay under a pseudonym", _forget),
    ):
        action = actions.add_parser(name, help=summary)
        action.add_argument("names", nargs="+", metavar="NAME")
        add_store_arguments(action)
        action.set_defaults(func=act)
    deciding = actions.add_parser("adjudicate", help="let someone decide the items on which others disagree")
    deciding.add_argument("names", nargs="+", metavar="NAME")
    deciding.add_argument("--stop", action="store_true", help="label like others again")
    add_store_arguments(deciding)
    deciding.set_defaults(func=_adjudicate)
    leading = actions.add_parser("lead", help="let someone see the project's admin pages with their own link")
    leading.add_argument("names", nargs="+", metavar="NAME")
    leading.add_argument("--stop", action="store_true", help="not any more")
    add_store_arguments(leading)
    leading.set_defaults(func=_lead)
    weight = actions.add_parser("weight", help="how much each label of someone counts in exports, scales and training")
    weight.add_argument("names", nargs="+", metavar="NAME")
    weight.add_argument("--to", type=float, required=True, metavar="W", help="above 0 and at most 1; 1 as others")
    add_store_arguments(weight)
    weight.set_defaults(func=_weight)
    quota = actions.add_parser("quota", help="how many answers people are asked for in all; a higher one gives a batch")
    quota.add_argument("names", nargs="+", metavar="NAME")
    quota.add_argument("--answers", type=int, metavar="N", help="repeated items included (default: no limit)")
    add_store_arguments(quota)
    quota.set_defaults(func=_quota)
    listing = actions.add_parser("list", help="list a project's annotators")
    add_store_arguments(listing)
    listing.set_defaults(func=_list)


def _add(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        project = store.project(args.project)
        known = {who.name for who in store.annotators(project.id)}
        taken = [name for name in args.names if name in known or args.names.count(name) > 1]
        if taken:
            raise DataError(f"'{taken[0]}' is already an annotator of project '{project.name}'; nobody was added.")
        for name in args.names:
            _, token = store.add_annotator(project.id, name)
            print(f"{name}\t{token}")
    return 0


def _token(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            print(f"{who.name}\t{store.new_token(who.id)}")
            if not who.active:
                print(
                    f"{who.name} is not active, so the link opens nothing before: popmargin label annotators activate "
                    f"{shlex.quote(who.name)} --db {in_words(args.db)}",
                    file=sys.stderr,
                )
    return 0


def _admit(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            store.let_in(who.id)
            print(f"{who.name} goes on" if who.held else f"{who.name} was not waiting")
    return 0


def _adjudicate(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            store.set_adjudicator(who.id, not args.stop)
            print(f"{who.name} labels like others" if args.stop else f"{who.name} decides what others disagree on")
        if not args.stop:
            print(f"{counted(store.disputed(store.project(args.project).id), 'disputed item')} now")
    return 0


def _lead(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            store.set_lead(who.id, not args.stop)
            print(f"{who.name} leads no more" if args.stop else f"{who.name} leads: their link opens the admin pages")
    return 0


def _weight(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            store.set_weight(who.id, args.to, who=user())
            said = "like those of others" if args.to == 1 else f"{args.to:g} each"
            print(f"{who.name}'s labels count {said}; nothing that was made of them before is changed")
    return 0


def _quota(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            store.set_quota(who.id, args.answers)
            said = "has no limit" if args.answers is None else f"is asked for {counted(args.answers, 'answer')} in all"
            print(f"{who.name} {said}")
    return 0


def _deactivate(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            store.set_active(who.id, False)
            print(f"{who.name} is no longer active")
    return 0


def _discard(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            places = counted(store.discard(who.id), "place")
            print(f"{who.name} is no longer active; the labels are kept but do not count; {places} free again")
    return 0


def _activate(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            store.set_active(who.id, True)
            print(f"{who.name} is active" + ("; the labels count again" if who.discarded else ""))
    return 0


def _forget(args: argparse.Namespace) -> int:
    with change_store(args.db) as store:
        for who in _named(store, args):
            pseudonym = store.forget(who.id)
            print(f"{who.name} is forgotten: the labels are those of '{pseudonym}' now")
    print("copies of the store and exported files still have the name and the notes")
    return 0


def _list(args: argparse.Namespace) -> int:
    with open_store(args.db) as store:
        for who in store.annotators(store.project(args.project).id):
            print(f"{who.name}\t{who.kind}\t{_state(who)}")
    return 0


def _state(who: Any) -> str:
    more = "" if who.weight == 1 else f", weight {who.weight:g}"
    if who.active:
        more += ", waits after the training" * who.held + ", adjudicates" * who.adjudicator + ", leads" * who.lead
        more += "" if who.quota is None else f", quota {who.quota}"
        return f"active{more}"
    return f"not active{', discarded' * who.discarded}{more}"


def _named(store: Any, args: argparse.Namespace) -> list[Any]:
    from popmargin.errors import did_you_mean

    project = store.project(args.project)
    known = {who.name: who for who in store.annotators(project.id)}
    for name in args.names:
        if name not in known:
            raise DataError(f"Project '{project.name}' has no annotator '{name}'. {did_you_mean(name, known)}")
    return [known[name] for name in args.names]
