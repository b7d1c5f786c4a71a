"""popmargin generate: responses to prompts, from a policy, a text-to-image model, a server or a file."""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from popmargin.bounds import Count, NotNegative, PositiveShare, Seed, Size
from popmargin.cli.cost_options import add_cost_options
from popmargin.cli.data_options import SPLIT_HELP, column
from popmargin.cli.judge_options import add_server_options, request_values
from popmargin.cli.numbers import number
from popmargin.cli.outputs import add_overwrite, check_outputs
from popmargin.data.read_prompts import Prompts, load_prompts
from popmargin.data.saving import SAVE_SUFFIXES
from popmargin.errors import ConfigError, counted
from popmargin.files import digest
from popmargin.generate.drawn import Drawn

_DESCRIPTION = """Make responses to prompts, a table that `data rate` scores and `data pairs` makes preferences of.
What is finished is kept beside the output (OUT.part) until the table is complete: after an interruption the same
command goes on, and gives the same file."""


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser("generate", help="sample responses to prompts", description=_DESCRIPTION)
    parser.add_argument(
        "prompts",
        metavar="PROMPTS",
        help="preferences, responses or rows with a prompt (any file that `data` reads), or a .txt file with a prompt "
        "in each line; prompts with the same content are one",
    )
    parser.add_argument(
        "--model",
        metavar="RUN",
        help="a run directory, a model's folder, a hub id, or demo; with --server its name there. A diffusers "
        "pipeline, demo-digits and demo-emoji make images",
    )
    parser.add_argument(
        "--answers", metavar="FILE", help="take the responses from a file, such as AlpacaEval's outputs, by the prompt"
    )
    parser.add_argument("--out", type=Path, required=True, help=f"file to write: {', '.join(SAVE_SUFFIXES)}")
    add_overwrite(parser)
    parser.add_argument(
        "--n", type=number(Size), help="responses to each prompt (default: 1; with --answers, all in the file)"
    )
    parser.add_argument("--limit", type=number(Size), help="use only the first so many prompts")
    parser.add_argument("--chat", action="store_true", help="give prompts that are texts as the message of a user")
    parser.add_argument("--split", help=SPLIT_HELP)
    parser.add_argument(
        "--column", action="append", default=[], type=column, metavar="FIELD=COLUMN", help="e.g. prompt=question"
    )
    parser.add_argument("--source", metavar="NAME", help="what the responses are said to be from (default: the model)")
    parser.add_argument("--round", type=number(Count), help="number of the iteration, kept with the responses")
    parser.add_argument(
        "--missing",
        choices=("error", "keep"),
        default="error",
        help="if a server or a file does not give all responses: stop, with what is there kept for the next time, or "
        "do without them (default: %(default)s)",
    )
    drawn = parser.add_argument_group("sampling")
    drawn.add_argument(
        "--temperature", type=number(NotNegative), default=1.0, help="0 takes the likeliest (default: 1)"
    )
    drawn.add_argument("--top-p", type=number(PositiveShare), default=1.0, help="default: 1, no cut")
    drawn.add_argument("--top-k", type=number(Count), default=0, help="default: 0, no cut")
    drawn.add_argument("--max-new-tokens", type=number(Size), default=256, help="default: %(default)s")
    drawn.add_argument("--seed", type=number(Seed), default=0, help="default: %(default)s")
    local = parser.add_argument_group("a model on this machine")
    local.add_argument("--batch-size", type=number(Size), help="responses at once (default: 64; images: 16)")
    local.add_argument("--max-prompt-tokens", type=number(Size), help="cut longer prompts at their start")
    local.add_argument("--precision", choices=("fp32", "bf16"), help="default: the run's own, else fp32")
    local.add_argument(
        "--generation-config",
        choices=("ignore", "model"),
        help="model: sample as the model's own generation_config.json says (default: leave its penalties and cuts out)",
    )
    local.add_argument(
        "--goal",
        metavar="SCORE",
        help="of a run that was trained on goals: 7, Helpfulness=8,Honesty=9, or none (default: the best seen in "
        "training)",
    )
    images = parser.add_argument_group("images")
    images.add_argument("--denoising-steps", type=number(Size), help="of the sampler (default: 20)")
    images.add_argument(
        "--guidance-scale", type=number(NotNegative), help="of classifier-free guidance (default: 1, none)"
    )
    images.add_argument(
        "--images", type=Path, metavar="FOLDER", help="also write PNG files here, with a metadata.jsonl that lists them"
    )
    server = parser.add_argument_group("a server")
    server.add_argument(
        "--server",
        metavar="URL",
        help="an OpenAI-compatible server (vLLM, SGLang, llama.cpp …): http://localhost:8000/v1",
    )
    add_server_options(server)
    add_cost_options(server, "this server")
    parser.set_defaults(func=_run, standing=_standing)


def _standing(args: argparse.Namespace) -> tuple[str, list[str]]:
    part = args.out.with_name(f"{args.out.name}.part")
    if not part.is_file():
        return "nothing was finished.", []
    lines = part.read_bytes().count(b"\n")
    return f"{max(lines - 1, 0)} responses are kept in {part}.", []


def _run(args: argparse.Namespace) -> int:
    check_outputs(args, {"--out": args.out}, SAVE_SUFFIXES, [args.prompts, args.answers])
    if args.images is not None and not args.overwrite and args.images.exists():
        raise ConfigError(f"--images {args.images} exists. Choose another folder, or pass --overwrite.")
    produce = _producer(args)
    prompts = load_prompts(args.prompts, split=args.split, columns=dict(args.column)).first(args.limit)
    if args.chat:
        prompts = prompts.as_chat()
    print("\n".join(prompts.step().lines()), file=sys.stderr)
    from popmargin.generate.part_file import forget_payments, part_beside

    with part_beside(args.out) as part:
        produced = produce(prompts, part)
        produced.responses.save(args.out)
        part.unlink(missing_ok=True)
        forget_payments(part)
    for line in produced.lines():
        print(line)
    made = produced.responses
    counts = f"{counted(len(made.texts), 'response')} to {counted(len(made), 'prompt')}"
    print(f"wrote {counts} to {args.out}")
    if args.images is not None:
        from popmargin.generate.from_denoiser import save_images

        print(f"wrote {counted(save_images(made, args.images, overwrite=args.overwrite), 'PNG file')} to {args.images}")
    return 0


Produce = Callable[[Prompts, Path], Any]


def _producer(args: argparse.Namespace) -> Produce:
    """Where responses come from: one of three; flags of another are refused before any work."""
    given = [name for name in ("--model", "--answers") if getattr(args, name[2:]) is not None]
    if len(given) != 1:
        raise ConfigError(
            "Say where the responses come from: --model RUN, --server URL with --model NAME, or --answers FILE; one of "
            "them."
        )
    if args.answers is not None:
        _refuse(args, (*_LOCAL, *_SERVER, *_SAMPLING, *_IMAGES), "--answers takes responses as they are")
        return _file(args)
    if args.server is not None:
        _refuse(args, (*_LOCAL, *_IMAGES), "--server samples texts on the server")
        return _server(args)
    _refuse(args, _SERVER, "without --server the model is sampled on this machine")
    pipeline = _pipeline(args.model)
    if pipeline is not None:
        _refuse(args, _OF_TEXTS, f"{args.model} makes images, which have no tokens")
        if args.out.suffix.lower() != ".parquet":
            raise ConfigError(f"Images need a .parquet file, and --out is {args.out}: JSON holds no bytes.")
        return _images(args, pipeline)
    _refuse(args, _IMAGES, f"{args.model} writes texts")
    return _policy(args)


_LOCAL: dict[str, Any] = {
    "batch_size": None, "max_prompt_tokens": None, "precision": None, "generation_config": None, "goal": None,
}  # fmt: skip
_SERVER: dict[str, Any] = {
    "server": None, "workers": None, "requests_per_minute": None, "retries": None, "timeout": None,
    "api_key_env": None, "no_logprobs": False, "request": [], "price_in": None, "price_out": None, "max_cost": None,
}  # fmt: skip
_SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 256, "seed": 0}
_IMAGES: dict[str, Any] = {"denoising_steps": None, "guidance_scale": None, "images": None}
_OF_TEXTS: dict[str, Any] = {"chat": False} | {
    name: value for name, value in (_SAMPLING | _LOCAL).items() if name not in ("seed", "batch_size", "precision")
}


def _refuse(args: argparse.Namespace, flags: Iterable[str], reason: str) -> None:
    defaults = {**_LOCAL, **_SERVER, **_SAMPLING, **_IMAGES, **_OF_TEXTS}
    for name in flags:
        if getattr(args, name) != defaults[name]:
            raise ConfigError(f"--{name.replace('_', '-')} has no effect: {reason}. Remove it.")


def _file(args: argparse.Namespace) -> Produce:
    from popmargin.generate.from_file import file_responses

    def produce(prompts: Prompts, part: Path) -> Any:
        options: dict[str, Any] = {"source": args.source, "round": args.round, "missing": args.missing}
        return file_responses(prompts, args.answers, samples=args.n, **options)

    return produce


def _server(args: argparse.Namespace) -> Produce:
    from popmargin.generate.from_server import ServerSampling, server_responses

    names = ("workers", "requests_per_minute", "retries", "timeout", "api_key_env", "price_in", "price_out", "max_cost")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    sampling = ServerSampling(
        samples=args.n or 1,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        seed=args.seed,
        logprobs=not args.no_logprobs,
        request=request_values(args.request),
    )

    def produce(prompts: Prompts, part: Path) -> Any:
        drawn = Drawn(args.temperature, args.top_k, top_p=args.top_p)
        own = "what the server adds of its own (penalties, cuts) counts, too"
        print(f"asking {args.model} at {args.server} for samples at {drawn}; {own}", file=sys.stderr)
        return server_responses(
            prompts,
            args.server,
            args.model,
            sampling,
            source=args.source,
            round=args.round,
            part=part,
            missing=args.missing,
            progress=True,
            **options,
        )

    return produce


def _policy(args: argparse.Namespace) -> Produce:
    """The producer that a model's name means; a mistyped name is an error before any work."""
    from popmargin.generate.from_policy import policy_responses
    from popmargin.generate.goal_prompts import NO_GOAL, read_goal
    from popmargin.generate.sample import Sampling
    from popmargin.models.named_policy import find_policy

    if args.generation_config == "model":
        _refuse(args, ("temperature", "top_p", "top_k"), "--generation-config model uses the model's own settings")
    policy = find_policy(args.model)
    goal: Any = args.goal
    if goal not in (None, NO_GOAL):
        if policy.goal is None:
            raise ConfigError(f"{args.model} was trained on no goals. Leave out --goal.")
        goal = read_goal(goal, policy.goal)
    sampling = Sampling(
        samples=args.n or 1,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        generation_config=args.generation_config or "ignore",
        batch_size=args.batch_size or 64,
        seed=args.seed,
        precision=args.precision or policy.precision,
    )

    def produce(prompts: Prompts, part: Path) -> Any:
        print(f"sampling from {policy.name} at {sampling.drawn}", file=sys.stderr)
        return policy_responses(
            prompts,
            policy,
            sampling,
            source=args.source,
            round=args.round,
            goal=goal,
            max_prompt_tokens=args.max_prompt_tokens,
            part=part,
            progress=True,
        )

    return produce


def _pipeline(name: str) -> Any:
    """The text-to-image model that a name means; None if it is none."""
    from popmargin.models.named_pipeline import find_pipeline

    return find_pipeline(name)


def _images(args: argparse.Namespace, named: Any) -> Produce:
    from popmargin.generate.from_denoiser import image_responses
    from popmargin.generate.sample_images import ImageSampling, drawn_by
    from popmargin.models.pipelines import part_fingerprint

    sampling = ImageSampling(
        samples=args.n or 1,
        denoising_steps=args.denoising_steps or 20,
        guidance_scale=1.0 if args.guidance_scale is None else args.guidance_scale,
        batch_size=args.batch_size or 16,
        seed=args.seed,
    )

    def produce(prompts: Prompts, part: Path) -> Any:
        pipeline, model = named.load()
        denoiser = pipeline.denoiser(model, args.precision or named.precision)
        print(f"sampling images from {named.name} with {drawn_by(denoiser, sampling)}", file=sys.stderr)
        made = image_responses(
            prompts,
            denoiser,
            sampling,
            source=named.name if args.source is None else args.source,
            fingerprint=digest(pipeline.fingerprint().encode(), part_fingerprint(model).encode()),
            round=args.round,
            part=part,
            progress=True,
        )
        return replace(made, notes=(*made.notes, *pipeline.cut_prompts([str(prompt) for prompt in prompts.prompts])))

    return produce
