"""The captioner: any size and length, padding and caches change nothing, it learns what it sees."""

import math

import numpy as np
import pytest
import torch

from data.bounds import check_bounds
from models.captioner.model import Captioner, caption_errors
from models.captioner.views import View, fit_view
from models.captioner.vocabulary import Special, Vocabulary
from models.captioner.words import write_captions
from models.config import POSITION_FEATURES, CaptionerConfig

TOLERANCE = 2e-5  # fp32: the same sums in another order
SMALL = CaptionerConfig(
    width=32, head_dim=16, encoder_depth=1, decoder_depth=2, stem_width=8, max_caption_tokens=12
)
SIZES = [(5, 32, 48), (1, 40, 24), (9, 16, 16), (3, 33, 20)]


def random_view(shape: tuple[int, int, int], seed: int = 0) -> View:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (*shape, 3), generator=draw, dtype=torch.uint8)
    return View(pixels, 12.0 if shape[0] > 1 else 0.0)


def random_model(config: CaptionerConfig = SMALL, pieces: int = 40) -> Captioner:
    """Return a captioner in which no weight is zero, so that every path shows."""
    model = Captioner(config, pieces).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=draw)
    return model


def test_a_caption_comes_back_from_its_numbers() -> None:
    captions = ["A red ball, turning left by about 120 degrees.", "It's half-open; grey 3-D view."]
    vocabulary = Vocabulary.of_captions(captions, most=100, min_count=1)
    for text in [*captions, "Two unseen words: half-red balls & 77 {marks}?"]:
        assert vocabulary.decode(vocabulary.encode(text)) == text
    assert len(vocabulary.encode(captions[0])) == 13  # words, digits and marks, each one number
    assert vocabulary.decode(vocabulary.encode("a  tab\tand\nline")) == "a tab and line"


def test_a_vocabulary_keeps_the_commonest_words_and_spells_the_others() -> None:
    vocabulary = Vocabulary.of_captions(["go red", "go red", "go blue"], most=2, min_count=2)
    assert set(vocabulary.pieces[-2:]) == {"go", " red"}
    assert len(vocabulary.encode("go blue")) == 1 + len(" blue")
    assert vocabulary.encode("ж") == [Special.unknown]
    again = Vocabulary(list(vocabulary.pieces))
    assert again.encode("go red blue") == vocabulary.encode("go red blue")
    with pytest.raises(ValueError, match="must not repeat"):
        Vocabulary(["a", "a"])


def test_clips_of_any_size_are_captioned_side_by_side_as_alone() -> None:
    model, views = random_model(), [random_view(s, i) for i, s in enumerate(SIZES)]
    captions = [[7, 8, 9], [10], [], list(range(5, 25))]
    starts = [Special.dense, Special.short, Special.dense, Special.short]
    together, counts = caption_errors(model, model.remember(views), captions, starts)
    assert counts.tolist() == [4, 2, 1, 12]  # the last one is cut and has no end
    for i, view in enumerate(views):
        alone, _ = caption_errors(model, model.remember([view]), [captions[i]], [starts[i]])
        assert alone.item() == pytest.approx(together[i].item(), rel=TOLERANCE)


def test_every_part_of_a_clip_counts() -> None:
    model, view = random_model(), random_view((6, 24, 40))
    base = caption_errors(model, model.remember([view]), [[7, 8]], [Special.dense])[0].item()
    for place in [(0, 0, 0), (5, 23, 39), (3, 10, 20)]:
        pixels = view.pixels.clone()
        pixels[place] = 255 - pixels[place]
        changed = caption_errors(
            model, model.remember([View(pixels, 12.0)]), [[7, 8]], [Special.dense]
        )[0].item()
        assert abs(changed - base) > TOLERANCE * abs(base), place
    slower = caption_errors(
        model, model.remember([View(view.pixels, 6.0)]), [[7, 8]], [Special.dense]
    )[0].item()
    assert abs(slower - base) > TOLERANCE * abs(base)


def test_words_see_only_earlier_words() -> None:
    model = random_model()
    memory = model.remember([random_view((5, 32, 32))])
    words = torch.tensor([[1, 7, 8, 9, 10]])
    changed = words.clone()
    changed[0, 3] = 20
    a, b = model.read(words, memory)[0], model.read(changed, memory)[0]
    torch.testing.assert_close(a[:, :3], b[:, :3], rtol=TOLERANCE, atol=TOLERANCE)
    assert not torch.allclose(a[:, 3], b[:, 3], atol=1e-3)


def test_the_cache_changes_nothing() -> None:
    model = random_model()
    memory = model.remember([random_view(s) for s in SIZES])
    words = torch.randint(5, 40, (4, 6), generator=torch.Generator().manual_seed(0))
    whole, _ = model.read(words, memory)
    cache, steps = None, []
    for i in range(6):
        logits, cache = model.read(words[:, i : i + 1], memory, cache)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_confidence_of_a_greedy_caption_is_its_mean_log_probability() -> None:
    model, views = random_model(), [random_view(s, i) for i, s in enumerate(SIZES)]
    starts = [Special.dense] * len(views)
    written = write_captions(model, model.remember(views), starts)
    sums, counts = caption_errors(model, model.remember(views), [w.words for w in written], starts)
    for w, total, count in zip(written, sums.tolist(), counts.tolist(), strict=True):
        assert w.logprob == pytest.approx(-total / count, rel=TOLERANCE)
        assert min(w.words, default=5) >= len(Special)


def test_nucleus_draws_follow_the_probabilities_of_the_likeliest_words() -> None:
    config = CaptionerConfig(
        width=16, head_dim=16, encoder_depth=1, decoder_depth=1, stem_width=4, max_caption_tokens=2
    )
    model = Captioner(config, 9).eval()
    chances = torch.tensor([0.0, 0, 0, 0, 0, 0.5, 0.3, 0.15, 0.05])
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(chances.clamp(min=1e-9).log())
    count = 2000
    memory = model.remember([random_view((1, 16, 16))]).repeat(count)
    draws = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    for top_p, shares in [(1.0, [0.5, 0.3, 0.15, 0.05]), (0.75, [0.625, 0.375, 0, 0])]:
        made = write_captions(model, memory, [Special.dense] * count, draws, top_p=top_p)
        seen = np.bincount([w.words[0] for w in made], minlength=9)[5:] / count
        error = 4 * math.sqrt(0.25 / count)  # four standard deviations of a share
        assert np.abs(seen - shares).max() < error, top_p
    with pytest.raises(ValueError, match=r"top_p=0"):
        write_captions(model, memory, [Special.dense] * count, draws, top_p=0.0)


def test_large_clips_are_spread_in_time_and_scaled_down_with_their_aspect() -> None:
    config = CaptionerConfig(max_frames=5, max_video_tokens=32)
    view = fit_view(torch.zeros(17, 160, 320, 3, dtype=torch.uint8), 24.0, config)
    assert view.pixels.shape[0] == 5
    assert view.fps == pytest.approx(24 * 4 / 16)
    height, width = view.pixels.shape[1:3]
    assert 2 * -(-height // 16) * -(-width // 16) <= 32
    assert width / height == pytest.approx(2, rel=0.05)
    small = torch.zeros(5, 33, 47, 3, dtype=torch.uint8)
    assert fit_view(small, 24.0, config).pixels is small


def test_the_frames_kept_are_those_nearest_to_an_even_spread() -> None:
    frames = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 16, 16, 3)
    kept = fit_view(frames, 24.0, CaptionerConfig(max_frames=5)).pixels[:, 0, 0, 0]
    assert kept.tolist() == [0, 3, 6, 8, 11]  # of 0, 2.75, 5.5, 8.25 and 11


def test_a_token_knows_its_place_as_a_share_of_the_frame_whatever_the_size() -> None:
    model, seen = random_model(), []
    model.place_in.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for height, width in ((64, 96), (32, 16)):
        model.remember([random_view((5, height, width))])
        rows, columns = height // 16, width // 16
        found = seen.pop()[:, :POSITION_FEATURES].view(2, rows, columns, 2, 3, 3)
        for axis, count, line in ((0, 2, found[:, 0, 0]), (1, rows, found[0, :, 0])):
            angle = math.pi * (torch.arange(count) + 0.5) / count  # the slowest of three octaves
            torch.testing.assert_close(line[:, 0, axis, 0], angle.sin())
            torch.testing.assert_close(line[:, 1, axis, 0], angle.cos())
        angle = math.pi * (torch.arange(columns) + 0.5) / columns
        torch.testing.assert_close(found[0, 0, :, 0, 2, 0], angle.sin())


def test_initial_weights_have_the_spread_of_their_fan_in_and_branches_begin_at_zero() -> None:
    model = Captioner(CaptionerConfig(width=64, head_dim=16, decoder_depth=1), 400)
    model.reset_parameters(torch.Generator().manual_seed(0))
    words, head = model.words.weight, model.head.weight
    for weight, std in ((words, 0.5), (head, 64**-0.5)):
        assert abs(weight.mean().item()) < 4 * std / weight.numel() ** 0.5
        assert weight.std().item() == pytest.approx(std, rel=0.03)
    ends = [p for name, p in model.decoder.named_parameters() if name.endswith(".out.weight")]
    assert ends
    assert not any(p.any() for p in [*ends, model.head.bias])


def test_frozen_features_may_be_handed_in() -> None:
    config = CaptionerConfig(
        width=32, head_dim=16, encoder_depth=1, decoder_depth=1, feature_channels=6
    )
    model = random_model(config)
    latent = torch.randn(6, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    errors, _ = caption_errors(model, model.remember([View(latent, 12.0)]), [[7]], [Special.dense])
    assert math.isfinite(errors.item())
    with pytest.raises(ValueError, match=r"feature_channels=6"):
        model.remember([View(latent[:5], 12.0)])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"captioner.head_dim=24"):
        Captioner(CaptionerConfig(width=64, head_dim=24), 10)
    with pytest.raises(ValueError, match=r"captioner.decoder_depth=0"):
        check_bounds(CaptionerConfig(decoder_depth=0), "captioner.")


COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


def coloured_clip(seed: int) -> tuple[View, str]:
    """Draw a square of a colour that drifts left or right over noise, and its caption."""
    draw = np.random.default_rng(seed)
    colour, step = str(draw.choice(list(COLOURS))), int(draw.choice([-4, 4]))
    frames = draw.integers(90, 130, (5, 32, 48, 3))
    for i in range(5):
        x = 18 + step * (i - 2)
        frames[i, 10:22, x : x + 12] = COLOURS[colour]
    side = "right" if step > 0 else "left"
    view = View(torch.from_numpy(frames.astype(np.uint8)), 8.0)
    return view, f"A {colour} square moves {side}."


@pytest.mark.heavy
def test_thirty_steps_beat_the_commonest_caption() -> None:
    train = [coloured_clip(i) for i in range(240)]
    unseen = [coloured_clip(10_000 + i) for i in range(60)]
    vocabulary = Vocabulary.of_captions([text for _, text in train], 100, 1)
    model = Captioner(SMALL, len(vocabulary))
    model.reset_parameters(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(30):
        batch = train[step * 8 : step * 8 + 8]
        ids = [vocabulary.encode(text) for _, text in batch]
        sums, counts = caption_errors(
            model, model.remember([v for v, _ in batch]), ids, [Special.dense] * 8
        )
        optimizer.zero_grad()
        (sums.sum() / counts.sum()).backward()
        optimizer.step()
    model.eval()
    memory = model.remember([view for view, _ in unseen])
    written = write_captions(model, memory, [Special.dense] * len(unseen))
    truth = [text for _, text in unseen]
    right = sum(vocabulary.decode(w.words) == t for w, t in zip(written, truth, strict=True))
    texts = [text for _, text in train]
    majority = max(set(texts), key=texts.count)
    assert right > 2 * truth.count(majority), (right, truth.count(majority))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_raises_chances_to_its_inverse_and_leaves_the_confidence(
    temperature: float,
) -> None:
    config = CaptionerConfig(
        width=16, head_dim=16, encoder_depth=1, decoder_depth=1, stem_width=4, max_caption_tokens=2
    )
    model, chances = Captioner(config, 8).eval(), torch.tensor([0.6, 0.3, 0.1])
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.cat([torch.full((5,), 1e-9), chances]).log())
    count = 2000
    memory = model.remember([random_view((1, 16, 16))]).repeat(count)
    draws = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    made = write_captions(model, memory, [Special.dense] * count, draws, temperature)
    seen = np.bincount([w.words[0] for w in made], minlength=8)[5:] / count
    sharp = chances ** (1 / temperature)
    assert np.abs(seen - (sharp / sharp.sum()).numpy()).max() < 4 * math.sqrt(0.25 / count)
    for w in made[:20]:
        expected = np.mean([math.log(chances[word - 5]) for word in w.words])
        assert w.logprob == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [(160, 320), (96, 96), (400, 70)])
def test_a_clip_is_scaled_by_the_first_power_of_097_that_fits(size: tuple[int, int]) -> None:
    config = CaptionerConfig(
        max_frames=5, max_video_tokens=48
    )  # 24 cells of 16 x 16 a latent frame
    view = fit_view(torch.zeros(5, *size, 3, dtype=torch.uint8), 24.0, config)
    shapes = [[round(n * 0.97**k) for n in size] for k in range(99)]
    fits = [-(-h // 16) * -(-w // 16) <= 24 for h, w in shapes]
    assert list(view.pixels.shape[1:3]) == shapes[fits.index(True)]
    grey = fit_view(torch.full((5, *size, 3), 77, dtype=torch.uint8), 24.0, config)
    assert (grey.pixels == 77).all()
