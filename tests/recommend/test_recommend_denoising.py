"""PreferDiff's model: schedules, errors, negatives, encoder, sampler, and the whole."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from popmargin.data.ragged import Ragged
from popmargin.errors import ConfigError
from popmargin.recommend.denoising.denoiser import Denoiser, time_features
from popmargin.recommend.denoising.guided_sampler import fixed_noise, guided, sample_vectors
from popmargin.recommend.denoising.history_encoder import CausalAttention, HistoryEncoder
from popmargin.recommend.denoising.item_denoiser import (
    Background,
    DenoisingErrors,
    DenoisingRecommender,
    ErrorDraws,
    ItemDenoiser,
    ItemDenoiserOptions,
    draw_errors,
    padded,
)
from popmargin.recommend.denoising.negatives import negative_vectors
from popmargin.recommend.denoising.noise_levels import noised, sampling_grid, signal_shares
from popmargin.recommend.denoising.vector_errors import VECTOR_ERRORS, vector_error
from popmargin.recommend.ranks import rank_cases, top_items
from popmargin.recommend.splitting import Cases

HISTORIES = Ragged.of([[1, 2, 3], [4], [2, 5], [6, 1]])
TARGETS = torch.tensor([4, 5, 6, 4])


def model(**options: Any) -> ItemDenoiser:
    torch.manual_seed(0)
    return ItemDenoiser(6, dimension=8, options=ItemDenoiserOptions(**options)).eval()


KINDS = pytest.mark.parametrize(
    "kind", [{}, {"negatives": "hardest"}, {"negatives": "random"}, {"negatives": "random", "negative_count": 3}]
)


def errors_of(
    denoiser: ItemDenoiser, histories: Ragged, targets: torch.Tensor, *, seed: int = 0, **more: Any
) -> DenoisingErrors:
    """With draws of a seed."""
    draws = draw_errors(denoiser.options, len(targets), 8, seeded(seed))
    return denoiser(*padded(histories, 10), targets, draws, generator=seeded(seed), **more)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_published_schedule() -> None:
    shares = signal_shares("linear", 2000)
    assert shares[[99, 999]].tolist() == pytest.approx([0.9424250851, 0.0061605354], abs=5e-11)
    assert float(shares[1999]) == pytest.approx(1.6288471e-9, rel=5e-8)


def test_the_other_schedules() -> None:
    """Scaled to 2,000 steps ends where linear ends with 1,000; cosine is its formula up to the clipped last step."""
    scaled = signal_shares("scaled", 2000)
    assert float(scaled[-1].log()) == pytest.approx(float(signal_shares("linear", 1000)[-1].log()), rel=0.01)
    torch.testing.assert_close(signal_shares("scaled", 1000), signal_shares("linear", 1000))
    cosine = signal_shares("cosine", 2000)

    def formula(time: int) -> float:
        return math.cos((time / 2000 + 0.008) / 1.008 * math.pi / 2) ** 2

    for time in (0, 999, 1900):
        assert float(cosine[time]) == pytest.approx(formula(time + 1) / formula(0), rel=1e-9)
    for shares in (scaled, cosine):
        assert (shares.diff() < 0).all() and 0 < shares[-1] < 1e-3 and shares[0] > 0.99
    with pytest.raises(ConfigError, match=r"no schedule 'liner'\. Did you mean 'linear'"):
        signal_shares("liner", 10)
    with pytest.raises(ConfigError, match="more than 20 steps"):
        signal_shares("scaled", 20)


def test_the_grid_is_that_of_training_or_the_published_one() -> None:
    shares = signal_shares("linear", 2000)
    ours, published = sampling_grid(shares), sampling_grid(shares, kind="published")
    assert ours.times.tolist() == list(range(99, 2000, 100))
    assert torch.equal(ours.shares, shares[ours.times])
    assert published.times.tolist() == list(range(0, 2001, 100))
    assert torch.equal(published.shares, shares[[0, *range(99, 2000, 100)]])
    with pytest.raises(ConfigError, match=r"7 points do not divide 2000 steps\. Give a divisor, such as 20"):
        sampling_grid(shares, 7)


def test_errors_by_hand() -> None:
    a, b = (torch.tensor([values], dtype=torch.float64) for values in ([1.0, 2.0, 2.0], [2.0, 0.0, 1.0]))
    found = [vector_error(kind, a, b).item() for kind in VECTOR_ERRORS]
    assert found == pytest.approx([0.1629859676, 0.4037152060, 2.0], abs=5e-11)
    zero = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    error = vector_error("squared_cosine", a, zero)
    assert torch.isfinite(torch.autograd.grad(error.sum(), zero)[0]).all() and error.item() == 1.0


def test_the_centroid_leaves_out_the_target_of_other_users() -> None:
    """A masked duplicate changes only its twin's row: all others get the mean over all other rows, as published."""
    torch.manual_seed(0)
    table = torch.randn(10, 4)
    targets = torch.tensor([7, 8, 7, 9])
    found, some = negative_vectors("centroid", targets, table[targets])
    assert some.all() and found.shape == (4, 1, 4)
    torch.testing.assert_close(found[1, 0], (2 * table[7] + table[9]) / 3)
    torch.testing.assert_close(found[3, 0], (2 * table[7] + table[8]) / 3)
    for twin in (0, 2):
        torch.testing.assert_close(found[twin, 0], (table[8] + table[9]) / 2)


def test_negatives_are_never_the_target() -> None:
    table = torch.arange(10.0)[:, None].expand(10, 2).contiguous()
    drawn, _ = negative_vectors("random", TARGETS, table[TARGETS], count=50, generator=seeded())
    for target, row in zip(TARGETS.tolist(), drawn[..., 0].tolist(), strict=True):
        assert set(row) == {4.0, 5.0, 6.0} - {float(target)}
    one, _ = negative_vectors("random", TARGETS, table[TARGETS], generator=seeded())
    assert one.shape == (4, 1, 2)
    predicted = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [1.0, 1.0]])
    hardest, _ = negative_vectors("hardest", TARGETS, table[TARGETS], predicted_BD=predicted)
    assert hardest[:, 0, 0].tolist() == [6, 4, 5, 6]
    with pytest.raises(ConfigError, match=r"negatives are 'hardst', 1 of them\. Did you mean 'hardest'"):
        negative_vectors("hardst", TARGETS, table[TARGETS])


@KINDS
def test_a_batch_of_one_has_no_negative(kind: dict[str, Any]) -> None:
    """The difference of the errors is 0 and has no gradient, so that only the regression is left."""
    denoiser = model(**kind)
    errors = errors_of(denoiser, HISTORIES[:1], TARGETS[:1])
    assert not errors.has_negative.any() and torch.equal(errors.positive, errors.negative)
    (errors.positive - errors.negative).sum().backward()
    assert all(not each.grad.any() for each in denoiser.parameters() if each.grad is not None)


@KINDS
def test_the_regression_does_not_depend_on_negatives(kind: dict[str, Any]) -> None:
    """With λ = 1 they need not be computed, and ℓ⁺ is plain regression of x_0 with the same random numbers."""
    places, real = padded(HISTORIES, 10)
    denoiser = model(**kind, null_share=0.0)
    errors = errors_of(denoiser, HISTORIES, TARGETS)
    plain = errors_of(denoiser, HISTORIES, TARGETS, without_negatives=True)
    assert torch.equal(errors.positive, plain.positive) and torch.equal(plain.positive, plain.negative)
    assert errors.negative.shape == (4,) and not torch.equal(errors.positive, errors.negative)
    draws = draw_errors(denoiser.options, 4, 8, seeded())
    vectors = denoiser.item_vectors()[TARGETS - 1]
    x = noised(vectors, draws.noise, signal_shares("linear", 2000)[draws.times])
    predicted = denoiser.denoiser(x, denoiser.states(places, real), draws.times)
    cosine = torch.nn.functional.cosine_similarity(vectors, predicted, dim=1)
    torch.testing.assert_close(plain.positive, (1 - cosine).square())


def test_the_negative_has_the_same_time_and_state() -> None:
    """The denoiser is called twice, with the same t and h."""
    denoiser = model(null_share=0.0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    denoiser.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[1], inputs[2])))
    errors_of(denoiser, HISTORIES, TARGETS)
    assert len(seen) == 2 and torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])


def test_given_negatives_and_a_background_do_not_depend_on_the_batch() -> None:
    """A row alone has the errors that it has among others."""
    denoiser = model()
    background = Background(torch.tensor([4, 5, 6]), torch.tensor([2.0, 1.0, 1.0]))
    rejected = torch.tensor([0, 2, 0, 3])
    draws = draw_errors(denoiser.options, 4, 8, seeded())
    together = denoiser(*padded(HISTORIES, 10), TARGETS, draws, rejected_B=rejected, background=background)
    for row in range(4):
        one = slice(row, row + 1)
        alone = ErrorDraws(*(getattr(draws, name)[one] for name in ("times", "null", "noise", "negative_noise")))
        errors = denoiser(
            *padded(HISTORIES[one], 10), TARGETS[one], alone, rejected_B=rejected[one], background=background
        )
        torch.testing.assert_close(errors.negative[0], together.negative[row])
    means, _ = background.without(TARGETS, denoiser.table)
    torch.testing.assert_close(means[0, 0], (denoiser.table[5] + denoiser.table[6]) / 2)  # without its target, 4
    torch.testing.assert_close(means[1, 0], (2 * denoiser.table[4] + denoiser.table[6]) / 3)


def test_some_states_are_replaced_by_the_null_state() -> None:
    denoiser = model(null_share=0.25)
    seen: list[torch.Tensor] = []
    denoiser.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    errors_of(denoiser, Ragged.of([[1]] * 2000), torch.arange(2000) % 6 + 1, without_negatives=True)
    share = (seen[0] == denoiser.null).all(dim=1).float().mean()
    assert 0.2 < share < 0.3


def test_histories_are_cut_and_left_aligned() -> None:
    places, real = padded(Ragged.of([[1, 2, 3], [4], [5, 6]]), 2)
    assert places.tolist() == [[2, 3], [4, 0], [5, 6]] and real.tolist() == [[True, True], [True, False], [True, True]]


def test_the_encoder_in_numpy() -> None:
    """The block written out for one history, with √D in the scores and the residual of LN(x)."""
    torch.manual_seed(0)
    encoder = HistoryEncoder(4, length=5).eval().double()
    vectors = torch.randn(1, 3, 4, dtype=torch.float64)
    state = encoder(vectors, torch.ones(1, 3, dtype=torch.bool))[0].detach().numpy()
    w = {name: value.detach().numpy() for name, value in encoder.named_parameters()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        apart = x - x.mean(-1, keepdims=True)
        return apart / np.sqrt((apart**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = vectors[0].numpy() + w["places.weight"][:3]
    queries = norm("before_attention", x)
    q, k, v = linear("attention.query", queries), linear("attention.key", x), linear("attention.value", x)
    attended = np.zeros_like(x)
    for head in (slice(0, 2), slice(2, 4)):
        scores = q[:, head] @ k[:, head].T / math.sqrt(4)  # √D, not √(D / 2)
        scores[np.triu_indices(3, 1)] = -np.inf
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        attended[:, head] = weights @ v[:, head]
    y = attended + queries + x
    inner = norm("before_feed_forward", y)
    fed = linear("feed_forward.outer", np.maximum(linear("feed_forward.inner", inner), 0)) + inner
    z = norm("feed_forward.norm", fed) + y
    np.testing.assert_allclose(state, norm("last", z)[-1], atol=1e-12)


def test_what_lies_after_the_last_item_changes_nothing() -> None:
    denoiser = model()
    together = denoiser.states(*padded(HISTORIES, 10))
    for row in range(len(HISTORIES)):
        torch.testing.assert_close(denoiser.states(*padded(HISTORIES[row : row + 1], 10))[0], together[row])
    places, real = padded(HISTORIES, 10)
    torch.testing.assert_close(denoiser.states(torch.where(real, places, 5), real), together)


def test_the_scale_of_attention_is_an_option() -> None:
    assert CausalAttention(8, 2, "published", 0.0).divisor == math.sqrt(8)
    assert CausalAttention(8, 2, "head", 0.0).divisor == 2
    with pytest.raises(ConfigError, match="3 heads do not divide the dimension 8"):
        CausalAttention(8, 3, "head", 0.0)


def test_the_denoiser_is_one_linear_map_or_has_hidden_layers() -> None:
    assert [each.weight.shape for each in Denoiser(8).layers] == [(8, 24)]  # type: ignore[union-attr]
    assert [each.weight.shape for each in Denoiser(8, [16, 5]).layers[::2]] == [(16, 24), (5, 16), (8, 5)]  # type: ignore[union-attr]
    features = time_features(torch.tensor([0, 3]), 4)
    expected = [math.sin(3), math.sin(3e-4), math.cos(3), math.cos(3e-4)]
    assert features[1].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ConfigError, match="must be even"):
        Denoiser(7)


def test_guidance_by_hand() -> None:
    def predict(x: torch.Tensor, states: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return 2 * states

    args = (torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([0.0, 1.0]), torch.tensor([5]))
    assert guided(predict, *args, 2.0).tolist() == [[6, -4]] and guided(predict, *args, 0.0).tolist() == [[2, 0]]


@pytest.mark.parametrize("kind", ["trained", "published"])
def test_a_denoiser_that_knows_the_answer_is_stepped_to_it(kind: Any) -> None:
    """x stays √ᾱ·x_0 + √(1 − ᾱ)·ε with the first ε all the way down."""
    grid = sampling_grid(signal_shares("linear", 2000), kind=kind)
    answer, noise = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    start = noised(answer, noise, grid.shares[-1].expand(3))
    seen: list[tuple[int, torch.Tensor]] = []

    def predict(x: torch.Tensor, states: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append((int(times[0]), x))
        return answer

    found = sample_vectors(predict, answer, answer[0], start, grid, guidance=0.0)
    assert torch.equal(found, answer) and [time for time, _ in seen] == grid.times.flip(0).tolist()
    for (_, x), share in zip(seen, grid.shares.flip(0), strict=True):
        torch.testing.assert_close(x, noised(answer, noise, share.expand(3)))


def test_noise_is_fixed_by_user_seed_and_draw() -> None:
    noise = fixed_noise([f"u{number}" for number in range(500)], 8)
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05
    assert torch.equal(noise[3:4], fixed_noise(["u3"], 8))
    assert not torch.equal(noise[:1], fixed_noise(["u0"], 8, seed=1))
    assert fixed_noise([], 8).shape == (0, 8)


def test_a_user_is_ranked_alike_in_any_batch() -> None:
    cases = Cases(("a", "b", "c", "d"), HISTORIES, TARGETS.numpy())
    recommender = DenoisingRecommender(model())
    whole = rank_cases(recommender, cases, items=6, count=3)
    alone = rank_cases(recommender, cases, items=6, count=3, chunk=1)
    np.testing.assert_array_equal(whole.best, alone.best)
    other = rank_cases(DenoisingRecommender(recommender.model, draw=1), cases, items=6)
    assert not np.array_equal(whole.ranks, other.ranks)
    assert top_items(recommender, HISTORIES, items=6, users=cases.users, exclude_history=False, count=3).tolist() == (
        whole.best.tolist()
    )
    recommender.model.train()
    with pytest.raises(ConfigError, match=r"call model\.eval"):
        recommender.scores(HISTORIES, cases.users)


def test_given_vectors_are_fixed_and_saved_with_the_model() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    denoiser = ItemDenoiser(6, vectors=vectors)
    assert "table" not in dict(denoiser.named_parameters()) and "table" in denoiser.state_dict()
    np.testing.assert_array_equal(denoiser.item_vectors().numpy(), vectors)
    with pytest.raises(ConfigError, match="6 vectors for 7 items"):
        ItemDenoiser(7, vectors=vectors)
    with pytest.raises(ConfigError, match="either the dimension of learned vectors, or vectors"):
        ItemDenoiser(6)


@pytest.mark.parametrize("options", [{"null_share": 1.0}, {"dropout": -0.1}, {"length": 0}, {"guidance": -1.0}])
def test_model_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ItemDenoiserOptions(**options)


def test_it_learns_what_follows_what() -> None:
    """Item n is followed by n + 1: soon all targets rank first."""
    torch.manual_seed(0)
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0].astype(np.float32)
    options = ItemDenoiserOptions(dropout=0.0, schedule="cosine")
    denoiser = ItemDenoiser(8, vectors=vectors, options=options)
    histories = Ragged.of([[number] for number in range(1, 8)])
    targets = torch.arange(2, 9)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(150):
        errors = errors_of(denoiser, histories, targets, seed=step)
        loss = 0.4 * errors.positive + 0.6 * torch.nn.functional.softplus(5 * (errors.positive - errors.negative))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    cases = Cases(tuple("abcdefg"), histories, targets.numpy())
    ranks = rank_cases(DenoisingRecommender(denoiser.eval()), cases, items=8).ranks
    assert ranks.max() == 0
