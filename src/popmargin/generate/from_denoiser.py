"""Images of a diffusion model for prompts, the same whenever a run is interrupted; and as files in a folder."""

import base64
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from popmargin.data.images import encode_png, image_name
from popmargin.data.read_prompts import Prompts
from popmargin.data.responses import Responses
from popmargin.files import digest, whole_folder
from popmargin.generate.part_file import PartFile
from popmargin.generate.produced import Produced, as_responses
from popmargin.generate.sample_images import Denoiser, ImageSampler, ImageSampling

_SLUG = re.compile(r"[^a-z0-9]+")


def image_responses(
    prompts: Prompts,
    denoiser: Denoiser,
    sampling: ImageSampling,
    *,
    source: str,
    fingerprint: str,
    round: int | None = None,
    part: Path | None = None,
    progress: bool = False,
) -> Produced:
    """Sample images for prompts.

    The noise of an image depends on seed, prompt and its number alone, so models sampled with one seed begin from the
    same noise. With a part file, what a killed call has finished is kept, and a later call with the same arguments
    gives what one call would have given.

    Args:
        prompts: texts; see `load_prompts`.
        denoiser: of the model.
        sampling: how to sample.
        source: what the images are said to be from.
        fingerprint: of the model's weights.
        round: of an iteration, if there is one.
        part: file of what is finished, deleted by whoever saves the responses (`PartFile.remove`); None keeps none.
        progress: show a progress bar, with images per second.

    Returns:
        Responses whose texts are the names of images, with their PNG files in the field `image`, `source` and `round`.

    Raises:
        RunError: a prompt is a conversation, or the part file was begun for something else.
    """
    sampler = ImageSampler(denoiser, prompts.prompts, sampling, keys=prompts.keys)
    asked = {
        "prompts": digest(*(key.encode("utf-8", "surrogatepass") for key in prompts.keys)),
        "model": fingerprint,
        "samples": sampling.samples,
        "seed": sampling.seed,
        "size": list(denoiser.shape),
        **vars(sampler.drawn),
    }
    kept = PartFile(part, asked)
    before, started = len(kept.done), time.monotonic()
    with tqdm(
        total=len(prompts) * sampling.samples, initial=before, desc="images", disable=not progress, unit="image"
    ) as bar:
        for places in sampler.batches:
            numbers = [divmod(place, sampling.samples) for place in places]
            if all(number in kept.done for number in numbers):
                continue
            # All of a batch are drawn even if some are kept: in the same batch they are the same, to the last bit.
            files = [encode_png(pixels) for pixels in sampler.draw(places)]
            entries: list[dict[str, Any]] = [
                {
                    "prompt": prompt,
                    "number": number,
                    "text": image_name(file),
                    "image": base64.b64encode(file).decode(),
                }
                for (prompt, number), file in zip(numbers, files, strict=True)
                if (prompt, number) not in kept.done
            ]
            kept.add(entries)
            bar.update(len(entries))
    done: Mapping[tuple[int, int], dict[str, Any]] = {
        place: entry | {"image": base64.b64decode(entry["image"])} for place, entry in kept.done.items()
    }
    return Produced(
        as_responses(prompts, done, source=source, round=round),
        new=len(kept.done) - before,
        new_tokens=0,
        seconds=time.monotonic() - started,
    )


def save_images(responses: Responses, folder: Path, *, overwrite: bool = False) -> int:
    """Write images as PNG files into a folder, with a metadata.jsonl that says which is which; their number.

    A line has `file_name`, `prompt`, `number` among the images of the prompt, `name`, and the image's scores: the
    layout that `datasets` calls imagefolder.

    Args:
        responses: with the field `image`.
        folder: a new one.
        overwrite: replace one that is there.

    Raises:
        RunError: the folder is not empty, or cannot be written.
    """
    lines: list[dict[str, Any]] = []
    with whole_folder(folder, replace=overwrite) as partial:
        for row, of_prompt in enumerate(responses):
            for number, response in enumerate(of_prompt["responses"]):
                file = f"{row:05d}-{_slug(of_prompt['prompt'])}-{number}.png"
                (partial / file).write_bytes(response["image"])
                named = {"file_name": file, "prompt": of_prompt["prompt"], "number": number, "name": response["text"]}
                lines.append(named | {name: response[name] for name in responses.score_names})
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (partial / "metadata.jsonl").write_text(text, encoding="utf-8")
    return len(lines)


def _slug(prompt: Any) -> str:
    """What is readable of a prompt in a file's name.

    Example:
        >>> _slug("A red 3, please!")
        'a-red-3-please'
    """
    return _SLUG.sub("-", str(prompt).lower()).strip("-")[:40] or "image"
