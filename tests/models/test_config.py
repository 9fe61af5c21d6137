"""Shapes that cannot be built or would fake a law: key, rule and remedy."""

import pytest

from data.bounds import check_bounds
from models.config import CaptionerConfig, CodecConfig, ModelConfig, VaeConfig
from models.dit.model import DiT

BAD = {
    r"model.width=50: must be a multiple of model.head_dim=16\. Use 48": {"width": 50},
    r"model.width=8: must be a multiple of model.head_dim=16\. Use 16": {"width": 8},
    r"model.width=32: must be at least half of model.values_per_token=96, .*rank.* Use a wider": {
        "width": 32,
        "values_per_token": 96,
        "spread": [1.0] * 24,
    },
    r"model.width=0: must be at least": {"width": 0},
    r"model.spread=\[1.0\]: must hold values_per_token / 4 = 6 .* Use the codec's": {
        "spread": [1.0]
    },
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_shape_is_refused_with_key_rule_and_remedy(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiT(ModelConfig(**BAD[message]))


OUTSIDE = {
    r"model.head_dim=7: must be a multiple of 2\. Use 16": {"width": 63, "head_dim": 7},
    r"model.head_dim=4: must be at least 6\. Use 16": {"head_dim": 4},
    r"model.head_dim=0: must be at least 6\. Use 16": {"head_dim": 0},
    r"model.depth=0: must be at least 1\. Use 2": {"depth": 0},
    r"model.spread\[5\]=0: must be above 0\. Use 1": {"spread": [1.0] * 5 + [0.0]},
}


@pytest.mark.parametrize("message", OUTSIDE)
def test_a_size_outside_its_bounds_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_bounds(ModelConfig(**OUTSIDE[message]), "model.")


@pytest.mark.parametrize(
    ("clip", "latent"),
    [((1, 16, 16), (1, 2, 2)), ((17, 180, 320), (5, 24, 40)), ((5, 1080, 17), (2, 136, 4))],
)
def test_latents_are_padded_to_whole_patches(
    clip: tuple[int, int, int], latent: tuple[int, int, int]
) -> None:
    assert CodecConfig().latent_shape(*clip) == latent


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 6, "head_dim": 6, "values_per_token": 12, "spread": [0.1] * 3},
        {"width": 48, "values_per_token": 96, "spread": [1.0] * 24},  # half of the values
        {"depth": 1},
    ],
)
def test_a_shape_at_the_edge_of_a_rule_is_built(changes: dict) -> None:
    ModelConfig(**changes).check()


def test_a_clip_off_the_grid_is_told_where_to_be_cut() -> None:
    for frames, cut in ((2, 1), (4, 1), (16, 13), (18, 17)):
        with pytest.raises(ValueError, match=rf"num_frames={frames}: .*k \* 4\. Cut .* to {cut} f"):
            CodecConfig().latent_shape(frames, 16, 16)
    assert CodecConfig(stride=[2, 4, 16]).latent_shape(7, 9, 33) == (4, 4, 4)


def test_a_captioners_head_must_divide_its_width() -> None:
    with pytest.raises(
        ValueError, match=r"captioner.head_dim=12: must divide captioner.width=64\."
    ):
        CaptionerConfig(width=64, head_dim=12).check()
    CaptionerConfig(width=60, head_dim=6).check()


@pytest.mark.parametrize("name", ["patch", "fold"])
def test_blocks_of_a_video_network_are_powers_of_two(name: str) -> None:
    VaeConfig(**{name: [1, 2, 8]}).check()
    for sizes in ([6, 1, 1], [1, 3, 1], [2, 4, 12]):
        with pytest.raises(ValueError, match=rf"vae\.{name}=.*: must be three powers of two"):
            VaeConfig(**{name: sizes}).check()
