"""Reports of images: the same prompts side by side as pictures, within limits, and nothing that only texts have."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from popmargin.data.images import encode_png
from popmargin.report import StudyResults
from popmargin.report.pictures import LARGEST, MAX_ROWS, any_reduced, picture_rows, thumbnail
from popmargin.report.render import render_report
from popmargin.report.results import ArmResult
from popmargin.statistics.intervals import Interval

PROMPTS = ["red 3", 'blue "7" <b>', "green 1"]


def pixels(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def samples(seed: int, size: int = 8, rows: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "prompt": PROMPTS[row % 3],
            "image": thumbnail(encode_png(pixels(100 * seed + row, size, size))),
            "reward": 0.5 + row / 10,
            "also": {"is_still_the_prompt": 0.9},
        }
        for row in range(rows)
    ]


def image_study(arms: int = 2, size: int = 8, rows: int = 3) -> StudyResults:
    metrics = {
        "accuracy": Interval(0.6, 0.55, 0.65), "mean_reward": Interval(0.5, 0.4, 0.6),
        "win_rate_reference": Interval(0.7, 0.6, 0.8), "mean_is_still_the_prompt": Interval(0.9, 0.85, 0.95),
    }  # fmt: skip
    made = [
        ArmResult(
            name=f"arm{number}", objective="dpo", label=f"Arm <{number}>", origin="baseline", seeds=[0, 1],
            metrics=metrics, samples=samples(number + 1, size, rows),
            differences={} if number == 0 else {"mean_is_still_the_prompt": Interval(-0.1, -0.15, -0.05, 0.001)},
        )
        for number in range(arms)
    ]  # fmt: skip
    return StudyResults(
        "Images", made, {"mean_reward": Interval(0.3, 0.2, 0.4)}, baseline="arm0", responses="images",
        reference_samples=samples(0, size, rows),
    )  # fmt: skip


class Images(HTMLParser):
    """The attributes of all pictures of a page, and the words in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_small_pictures_keep_every_pixel_and_large_ones_are_reduced() -> None:
    small = thumbnail(encode_png(pixels(0, 8, 12)))
    stored = Image.open(io.BytesIO(base64.b64decode(small["source"].partition(",")[2])))
    assert (np.asarray(stored) == pixels(0, 8, 12)).all()
    assert (small["width"], small["height"], small["reduced"]) == (12, 8, False)
    large = thumbnail(encode_png(np.full((600, 1200, 3), 90, np.uint8)))
    assert (large["width"], large["height"], large["reduced"]) == (LARGEST, LARGEST // 2, True)
    assert large["source"].startswith("data:image/jpeg;base64,")


def test_the_grid_has_a_row_for_each_prompt_and_a_column_for_each_arm() -> None:
    rows, left_out = picture_rows(image_study(arms=3))
    assert [row.prompt for row in rows] == PROMPTS
    assert left_out == 0
    assert all(len(row.cells) == 4 and all(row.cells) for row in rows)
    assert rows[0].cells[2].source == thumbnail(encode_png(pixels(200)))["source"]  # pyright: ignore
    assert rows[1].cells[0].captions == (("reward", "0.60"), ("is still the prompt", "0.90"))  # pyright: ignore


def test_the_second_sample_of_a_prompt_stands_in_a_row_of_its_own() -> None:
    rows, left_out = picture_rows(image_study(arms=1, rows=MAX_ROWS + 3))
    assert (len(rows), left_out) == (MAX_ROWS, 3)
    assert [row.prompt for row in rows][:6] == PROMPTS * 2
    assert rows[0].cells[0].source != rows[3].cells[0].source  # pyright: ignore


def test_an_arm_without_samples_has_empty_cells() -> None:
    study = image_study()
    study = replace(study, arms=[study.arms[0], replace(study.arms[1], samples=[])])
    rows, _ = picture_rows(study)
    assert [cell is None for cell in rows[0].cells] == [False, False, True]
    render_report(study)


def test_the_page_shows_pictures_with_alternatives_in_words() -> None:
    page = Images(render_report(image_study()))
    assert len(page.found) == 9
    assert page.found[0]["alt"] == "red 3, by Reference policy, reward 0.50"
    assert page.found[4]["alt"] == 'blue "7" <b>, by Arm <0>, reward 0.60'
    assert {image["class"] for image in page.found} == {"tiny"}
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.found)
    assert "from the same noise" in page.words
    assert "shown reduced" not in page.words


def test_reduced_pictures_are_said_to_be() -> None:
    study = image_study(arms=1, size=300, rows=1)
    assert any_reduced(study)
    page = Images(render_report(study))
    assert f"Pictures of more than {LARGEST} pixels are shown reduced" in page.words
    assert all("class" not in image for image in page.found)


def test_a_page_of_large_pictures_stays_small() -> None:
    """Nine arms with photographs of a million pixels: the limit on each picture is one on the page."""
    photo = Image.fromarray(pixels(0, 16, 16)).resize((1024, 1024), Image.Resampling.BICUBIC)
    file = thumbnail(encode_png(np.asarray(photo)))
    assert len(file["source"]) < 40_000


def test_further_rewards_are_columns_and_what_only_texts_have_is_not_shown() -> None:
    page = render_report(image_study())
    words = Images(page).words
    head = page[page.index("<thead>") : page.index("</thead>")]
    titles = [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r'<th scope="col">(.*?)</th>', head)]
    assert titles == [
        "Arm", "Accuracy", "PoP accuracy", "Spearman ρ", "Mean reward gold reward", "Mean is still the prompt",
        "Win rate vs reference", "Win rate vs baseline arm",
    ]  # fmt: skip
    for of_texts in ("KL per token", "Distinct", "Length", "tokens"):
        assert of_texts not in words, of_texts
    assert "▼" in page[page.index("<tbody>") : page.index("</tbody>")]


def test_reports_of_texts_are_as_before(study: StudyResults) -> None:
    page = render_report(study)
    assert "KL per token" in page
    assert "Completions, one for each arm" in page
    assert "<img" not in page


def test_results_with_pictures_are_saved_and_read_again(tmp_path: Any) -> None:
    study = image_study()
    study.save(tmp_path / "results.json")
    again = StudyResults.load(tmp_path / "results.json")
    assert render_report(again) == render_report(study)


@pytest.mark.parametrize("missing", ["is_still_the_prompt"])
def test_a_further_reward_of_one_arm_alone_is_a_dash_in_others(missing: str) -> None:
    study = image_study()
    bare = replace(study.arms[1], metrics={"mean_reward": Interval(0.5, 0.4, 0.6)}, differences={})
    words = Images(render_report(replace(study, arms=[study.arms[0], bare]))).words
    assert "Mean is still the prompt" in words


def test_the_reward_has_its_name_under_pictures_and_in_the_summary() -> None:
    study = replace(image_study(), reward="how_blue")
    rows, _ = picture_rows(study)
    assert rows[0].cells[1].captions[0] == ("how blue", "0.50")  # pyright: ignore
    page = render_report(study)
    assert "Mean reward <small>how blue</small>" in page and "gold reward</small>" not in page
    assert "Mean how blue →" in page


def test_what_the_reward_costs_is_drawn_for_every_further_reward() -> None:
    """Few arms are named in the plot, many in a legend; a study without further rewards has no such section."""
    few, many = render_report(image_study(arms=3)), render_report(image_study(arms=12))
    costs = [page[page.index('id="costs"') : page.index('id="tradeoff"')] for page in (few, many)]
    for page, arms in zip(costs, (3, 12), strict=True):
        assert all(f"Arm &lt;{number}&gt;: 0.50" in page for number in range(arms))
        assert page.count("<svg") - page.count('class="key"') == 1
    assert 'aria-label="Legend"' not in costs[0] and costs[1].count("<li>") == 12
    bare = replace(image_study(), arms=[replace(arm, metrics={"mean_reward": Interval(0.5, 0.4, 0.6)}, differences={})
                                        for arm in image_study().arms])  # fmt: skip
    assert 'id="costs"' not in render_report(bare)


def test_captions_of_images_do_not_speak_of_lengths() -> None:
    words = Images(render_report(image_study())).words
    assert "longer response" not in words and "evaluation interval" not in words
    assert "evaluation.curve_points" in words


def test_a_clear_difference_is_not_shown_as_zero() -> None:
    study = image_study()
    small = {"mean_is_still_the_prompt": Interval(0.0013, 0.001, 0.0016, 0.001)}
    study = replace(study, arms=[study.arms[0], replace(study.arms[1], differences=small)])
    page = render_report(study)
    assert "+0.001 better" in page and ">0.00 better" not in page
