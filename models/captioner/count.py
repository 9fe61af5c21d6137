"""Closed-form parameters of the captioner; no torch, tested against it."""

from models.config import POSITION_FEATURES, CaptionerConfig

CLIP_FEATURES = 16  # sinusoids of a clip's frame rate
_CELLS = 4 * 4  # of the second convolution in a token: 4 frames of 2 x 2


def count_captioner_params(config: CaptionerConfig, pieces: int) -> int:
    """Count the trainable parameters of ``models.captioner.model.Captioner`` exactly.

    pieces: of its vocabulary, special ones and single characters included.
    """
    D, hidden = config.width, config.mlp_ratio * config.width
    norm = 2 * D
    attention = norm + 4 * D * D + D // config.head_dim
    mlp = norm + _linear(D, hidden) + _linear(hidden, D)
    total = _stem(config) + _linear(POSITION_FEATURES + CLIP_FEATURES, D)
    total += config.encoder_depth * (attention + mlp) + norm
    total += _linear(2 * D, D) + _linear(D, D)  # the clip's summary
    total += (pieces + config.max_caption_tokens + 1) * D
    total += config.decoder_depth * (2 * attention + mlp) + norm
    return total + _linear(D, pieces)


def _stem(config: CaptionerConfig) -> int:
    if config.feature_channels:
        return _linear(4 * config.feature_channels, config.width)
    inner = config.stem_width
    convolutions = (3 * 16 + 1) * inner + (inner * 4 + 1) * 2 * inner
    return convolutions + _linear(_CELLS * 2 * inner, config.width)


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
