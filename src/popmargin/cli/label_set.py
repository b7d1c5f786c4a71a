"""popmargin label set: change a project's settings while people label, or show them and what was changed."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from popmargin.cli.change_store import change_store
from popmargin.cli.gold_options import lease_seconds, read_gold
from popmargin.cli.store_options import add_store_arguments, user
from popmargin.data.column_names import column_names
from popmargin.errors import ConfigError, counted

_SHOWN = 60
_WEBHOOK = ("url", "private", "waiting", "attempts", "error", "given_up")


def add_parser(verbs: Any) -> None:
    """Add `label set` to the command line."""
    parser = verbs.add_parser("set")
    add_store_arguments(parser)
    parser.add_argument("--overlap", type=int, help="people per item")
    parser.add_argument("--repeat-share", type=float, help="share of items repeated to the same annotator")
    parser.add_argument("--lease-minutes", type=float, help="how long an item is reserved")
    parser.add_argument(
        "--training", type=int, metavar="N", help="gold items that everybody gets first, with feedback; 0 for none"
    )
    parser.add_argument(
        "--passing", type=float, metavar="SHARE", help="share of them to get right; others wait for you; 0 for none"
    )
    parser.add_argument(
        "--state",
        choices=("open", "paused", "archived"),
        help="paused: no tasks are given out; archived: nothing changes, and the project is on no list",
    )
    parser.add_argument("--votes", choices=("shown", "hidden"), help="whether adjudicators see what others say")
    webhook = parser.add_mutually_exclusive_group()
    webhook.add_argument(
        "--webhook", metavar="URL", help="send the project's events there, signed with a secret that is printed once"
    )
    webhook.add_argument("--no-webhook", action="store_true", help="send no events, also not those that wait")
    parser.add_argument(
        "--webhook-private", action="store_true", help="allow a URL in the own network or on this machine"
    )
    parser.add_argument(
        "--both-bad",
        action=argparse.BooleanOptionalAction,
        help="offer the answer that both responses are bad, or no more",
    )
    parser.add_argument(
        "--show", type=column_names, metavar="COLUMN,…", help="columns that people see with a task; '' for none"
    )
    gold = parser.add_mutually_exclusive_group()
    gold.add_argument("--gold", type=Path, metavar="FILE", help="known answers to add or change, as of label import")
    gold.add_argument("--no-gold", type=Path, metavar="FILE", help="items whose answer is not known after all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=_set)


def _set(args: argparse.Namespace) -> int:
    given = {
        "overlap": args.overlap,
        "repeat_share": args.repeat_share,
        "lease_seconds": lease_seconds(args.lease_minutes),
        "training": args.training,
        "passing": args.passing,
        "state": args.state,
        "votes_hidden": None if args.votes is None else args.votes == "hidden",
        "shown": args.show,
        "both_bad": args.both_bad,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    for name in ("training", "passing"):
        if settings.get(name) == 0:
            settings[name] = None
    if settings.get("training", 1) is None:
        settings.setdefault("passing", None)  # a share of nothing
    if args.webhook_private and args.webhook is None:
        raise ConfigError("--webhook-private says which addresses --webhook may have: give both.")
    with change_store(args.db) as store:
        project = store.project(args.project)
        if args.webhook is not None:
            made = store.webhooks.set(project.id, args.webhook, private=args.webhook_private)
            print(f"secret of the webhook\t{made.secret}", file=sys.stderr)
        elif args.no_webhook:
            store.webhooks.remove(project.id)
        file = args.gold or args.no_gold
        if file is not None:
            print(_gold(store, project, file, remove=args.gold is None), flush=True)
        if settings:
            project = store.change(project.id, who=user(), **settings)
        project, changes = store.project(project.name), store.changes(project.id)
        progress, webhook = store.progress(project.id), store.webhooks.of(project.id)
    shown = {name: getattr(project, name) for name in (*given, "items", "gold_items")}
    wanted = {"labels_done": progress.labels_done, "labels_wanted": progress.labels_wanted}
    if args.json:
        shown["webhook"] = None if webhook is None else {name: getattr(webhook, name) for name in _WEBHOOK}
        log = [asdict(change) | {"at": change.at.isoformat()} for change in changes]
        print(json.dumps({"project": project.name, **shown, **wanted, "changes": log}, ensure_ascii=False, indent=2))
        return 0
    print(f"{project.name}: {', '.join(f'{name} {_text(value)}' for name, value in shown.items())}")
    print(f"{progress.labels_done} of {counted(progress.labels_wanted, 'label')} done")
    if webhook is not None:
        failed = f", {counted(webhook.attempts, 'failure')} in a row: {webhook.error}" if webhook.error else ""
        lost = f", {webhook.given_up} given up" if webhook.given_up else ""
        print(f"webhook {webhook.url}: {counted(webhook.waiting, 'event')} waiting{lost}{failed}")
    for change in changes:
        before, after = (_text(value) for value in (change.before, change.after))
        print(f"  {change.at:%Y-%m-%d %H:%M} UTC  {change.who}: {change.setting} {before} → {after}")
    return 0


def _gold(store: Any, project: Any, file: Path, *, remove: bool) -> str:
    from popmargin.label.projects.change_gold import set_known_answers
    from popmargin.label.projects.same_project import item_kinds

    kinds = item_kinds(store, project)
    if not kinds:
        raise ConfigError(f"Project '{project.name}' has no items yet. Give --gold to label import.")
    counts = set_known_answers(store, project, read_gold(file, kinds[0]), remove=remove, who=user())
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"known answers: {said or 'nothing to change'}"


def _text(value: object) -> str:
    """A value on one short line."""
    value = ", ".join(value) if isinstance(value, tuple) else value
    text = "none" if value in (None, "") else " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
