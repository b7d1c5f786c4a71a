"""popmargin data: look at preference data, check, convert, split, augment it; rate it, and pair responses."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from popmargin.account import Step
from popmargin.bounds import Count
from popmargin.cli import data_augment, data_export, data_pairs, data_rate
from popmargin.cli.data_source import add_bad_rows, add_source, load_source, print_report, source_options
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.conversation import Message
from popmargin.data.embed_images import with_embedded_images
from popmargin.data.goals import body_keys
from popmargin.data.load import scan_preferences
from popmargin.data.load_report import LoadReport
from popmargin.data.saving import SAVE_SUFFIXES, plain_value
from popmargin.data.schema import NUMBER_COLUMNS, Preferences
from popmargin.data.split import check_leak, split_preferences
from popmargin.data.summary import example_rows, summarise
from popmargin.data.tools import said
from popmargin.demo.folder import embedded_data
from popmargin.errors import DataError, counted

_SHOWN = 160


def add_parser(subparsers: Any) -> None:
    """Add `data inspect | check | convert | split | rate | pairs | augment | export` to the command line."""
    names = ("inspect", "check", "convert", "split", "rate", "pairs", "augment", "export")
    parser = subparsers.add_parser("data", help=f"preference data: {', '.join(names)}")
    verbs = parser.add_subparsers(dest="data_verb", required=True, metavar="{" + ",".join(names) + "}")
    inspect = verbs.add_parser("inspect", help="show format, counts, lengths, strengths and some examples")
    add_source(inspect)
    inspect.add_argument("--examples", type=number(Count), default=3, help="rows to show (default: %(default)s)")
    _add_model(inspect)
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(func=_inspect)
    check = verbs.add_parser(
        "check",
        help="list every problem with its row and remedy, and show three rows as trained; exit status 1 if there is "
        "a problem",
    )
    add_source(check)
    check.add_argument(
        "--against",
        metavar="TRAIN",
        help="also check that no prompt in SOURCE is in TRAIN, in any layout; give a split as TRAIN:SPLIT",
    )
    _add_model(check)
    check.add_argument("--limit", type=number(Count), default=20, help="problems to print (default: %(default)s)")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(func=_check)
    convert = verbs.add_parser("convert", help="write the canonical columns as .parquet, .jsonl or .jsonl.gz")
    add_source(convert)
    convert.add_argument("out", type=Path, help="file to write")
    convert.add_argument(
        "--images",
        choices=("keep", "embed"),
        default="keep",
        help="keep images as they are, bytes or paths, or embed the files' bytes (.parquet) (default: %(default)s)",
    )
    add_overwrite(convert)
    add_bad_rows(convert)
    convert.set_defaults(func=_convert)
    split = verbs.add_parser("split", help="write train and test files with no prompt in common")
    add_source(split)
    split.add_argument("--train", type=Path, required=True, help="file to write: .parquet, .jsonl or .jsonl.gz")
    split.add_argument("--test", type=Path, required=True, help="file to write")
    split.add_argument(
        "--test-size",
        type=_size,
        default=0.1,
        help="share (0.1) or number (100) of prompts to hold out (default: %(default)s)",
    )
    add_overwrite(split)
    add_bad_rows(split)
    split.set_defaults(func=_split)
    data_rate.add_parser(verbs)
    data_pairs.add_parser(verbs)
    data_augment.add_parser(verbs)
    data_export.add_parser(verbs)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="PATH", help="also show what this model's chat template does to the rows")


def _size(text: str) -> float | int:
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a share like 0.1 nor a number like 100") from None


def _scan(args: argparse.Namespace, source: str) -> tuple[Preferences | None, LoadReport]:
    return scan_preferences(embedded_data(source) or source, **source_options(args))


def _inspect(args: argparse.Namespace) -> int:
    prefs, report = _scan(args, args.source)
    summary = summarise(prefs, examples=args.examples) if prefs is not None else None
    template = _template_notes(args.model, prefs)
    if args.json:
        content = {"load": report.to_dict(limit=20), "data": summary, "template": template}
        print(json.dumps(content, ensure_ascii=False, indent=2, default=_as_json))
        return 0
    print_report(report, limit=5)
    _print_template(template)
    if summary is not None:
        _print_summary(summary)
    return 0


def _check(args: argparse.Namespace) -> int:
    prefs, report = _scan(args, args.source)
    leak = None
    if args.against is not None and prefs is not None:
        train = _training_side(args)
        try:
            if train is not None:
                check_leak(train, prefs)
        except DataError as error:
            leak = str(error)
    examples = [] if prefs is None else [prefs[row] for row in example_rows(len(prefs), 3)]
    good = not report.fatal and leak is None and prefs is not None
    template = _template_notes(args.model, prefs)
    if args.json:
        content = {"ok": good, "leak": leak, "template": template, "examples": examples}
        content |= report.to_dict(limit=args.limit)
        print(json.dumps(content, ensure_ascii=False, indent=2, default=_as_json))
    else:
        print_report(report, limit=args.limit)
        _print_template(template)
        if leak is not None:
            print(leak)
        _print_examples(examples)
        empty = f"{report.source} has no rows" if not report.rows_in else f"{counted(len(report.fatal), 'problem')}"
        print("ok" if good else empty + (", and a leak" if leak is not None else ""))
    return 0 if good else 1


def _training_side(args: argparse.Namespace) -> Preferences | None:
    """The data of --against, read like SOURCE, or with a detected format if that fails: leaks cross layouts."""
    options = source_options(args)
    options["split"] = None
    try:
        return scan_preferences(args.against, **options)[0]
    except DataError:
        options.update(format="auto", columns=None)
        return scan_preferences(args.against, **options)[0]


def _template_notes(model: str | None, prefs: Preferences | None) -> list[str] | None:
    """What a model's chat template does to the preferences, in sentences; None if no model is named."""
    if model is None or prefs is None:
        return None
    from popmargin.data.tokenize import tokenize_preferences
    from popmargin.models.policies import load_tokenizer

    return tokenize_preferences(prefs, load_tokenizer(model), max_length=None, workers=None).report.notes()


def _print_template(notes: list[str] | None) -> None:
    for note in ["the chat template changes nothing"] if notes == [] else notes or []:
        print(f"  {note}")


def _convert(args: argparse.Namespace) -> int:
    check_outputs(args, {"OUT": args.out}, SAVE_SUFFIXES, [args.source])
    prefs = load_source(args)
    if args.images == "embed":
        prefs = with_embedded_images(prefs)
    prefs.save(args.out)
    print(f"wrote {counted(len(prefs), 'preference')} to {args.out}")
    return 0


def _split(args: argparse.Namespace) -> int:
    check_outputs(args, {"--train": args.train, "--test": args.test}, SAVE_SUFFIXES, [args.source])
    prefs = load_source(args)
    train, test = split_preferences(prefs, test_size=args.test_size, seed=args.seed)
    check_leak(train, test)
    print(Step(name="split", rows_in=len(prefs), kept={"to train on": len(train), "held out": len(test)}).lines()[0])
    for part, path in ((train, args.train), (test, args.test)):
        part.save(path)
        print(f"wrote {counted(len(part), 'preference')}, {counted(len(set(body_keys(part))), 'prompt')}, to {path}")
    return 0


def _as_json(value: Any) -> Any:
    """Values of other columns without a JSON type; of bytes, such as images, only how many there are."""
    return counted(len(value), "byte") if isinstance(value, bytes) else plain_value(value)


def _print_summary(summary: dict[str, Any]) -> None:
    kind = "images" if summary["images"] else "conversations" if summary["conversational"] else "text"
    print(f"{counted(summary['rows'], 'preference')} on {counted(summary['prompts'], 'prompt')}, {kind}")
    print(f"  fingerprint {summary['fingerprint'][:16]}, annotators named: {summary['annotators']}")
    print("  characters      min      p10   median      p90      max")
    for name, spread in summary["characters"].items():
        if name == "prompt" or not summary["images"]:  # the names of images are all as long
            print(f"    {name:<9}{_quantiles(spread)}")
    if not summary["images"]:
        print(f"  longer completion: chosen {summary['longer_chosen']:.1%}, rejected {summary['longer_rejected']:.1%}")
    strength = summary["strength"]
    if strength is None:
        print("  strength: unknown (no strength column, no ratings)")
    else:
        print("  strength        min      p10   median      p90      max    count")
        for spread in ({"name": "all", **strength}, *strength["thirds"]):
            numbers = _quantiles(spread) if spread["count"] else " " * 45
            print(f"    {spread['name']:<9}{numbers}{spread['count']:>9}")
        print(f"    unknown: {strength['unknown']}, zero (equal ratings): {strength['zero']}")
    for name, spread in (summary["ratings"] or {}).items():
        values = spread["values"]
        shown = ", ".join(f"{value}: {count}" for value, count in values.items()) if values else _quantiles(spread)
        print(f"  {name}: {shown}")
    _print_examples(summary["examples"])


def _quantiles(spread: dict[str, Any]) -> str:
    return "".join(f"{spread[name]:>9.4g}" for name in ("min", "p10", "median", "p90", "max"))


def _print_examples(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        facts = [f"{name} {row[name]:g}" for name in NUMBER_COLUMNS if row[name] is not None]
        print(f"  example {row['id']}" + (f" ({', '.join(facts)})" if facts else ""))
        for name in ("prompt", "chosen", "rejected"):
            turns = [f'"{_short(row[name])}"'] if isinstance(row[name], str) else list(map(_turn, row[name]))
            for line, text in enumerate(turns):
                print(f"    {'' if line else name:<9} {text}")


def _turn(message: Message) -> str:
    return f'{message["role"]}: "{_short(said(message))}"'


def _short(text: str) -> str:
    """A text on one line, with line breaks and outer white space made visible."""
    text = text.replace("\n", "\\n")
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} … {text[-_SHOWN // 2 :]}"
