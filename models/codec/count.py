"""Closed-form parameters and FLOPs of the networks of this room; no torch, tested against it.

Conventions are those of models/count.py: a multiply-add is 2 FLOPs, and only matrix products
and convolutions count, as in torch's flop counter.
"""

from itertools import pairwise
from math import prod

from models.config import PerceptualConfig, VaeConfig

_SPACE, _TIME = 9, 3  # taps of a block's depthwise convolutions, models/codec/vae.py
_KERNEL = 16  # of a stage of the perceptual encoder, 4 x 4


def count_vae_params(config: VaeConfig) -> int:
    """Count the trainable parameters of ``models.codec.vae.Vae`` exactly."""
    patch, fold, channels = 3 * prod(config.patch), prod(config.fold), config.channels
    outer, inner = config.encoder_widths
    first, second = config.encoder_blocks
    encoder = _linear(patch, outer) + _linear(outer * fold, inner) + inner
    encoder += first * _block(outer, config) + second * _block(inner, config)
    encoder += _linear(inner, 2 * channels)
    inner, outer = config.decoder_widths
    first, second = config.decoder_blocks
    decoder = _linear(channels, inner) + _linear(inner, outer * fold) + outer
    decoder += first * _block(inner, config) + second * _block(outer, config)
    decoder += _linear(outer, patch)
    low_pass = 2 * channels * patch * fold  # a path beside each of the two
    return encoder + decoder + low_pass


def vae_flops(config: VaeConfig) -> int:
    """Return the FLOPs of one forward pass, there and back, for each latent position.

    A clip of 1 + 4 k frames has ``f h w`` of them. Folding the fixed transform into two weights
    costs the same for any clip and is left out; training costs about three forward passes.
    """
    patch, fold, channels = 3 * prod(config.patch), prod(config.fold), config.channels
    outer, inner = config.encoder_widths
    first, second = config.encoder_blocks
    products = fold * patch * outer + fold * outer * inner + inner * 2 * channels
    products += fold * first * _block_products(outer, config)
    products += second * _block_products(inner, config)
    inner, outer = config.decoder_widths
    first, second = config.decoder_blocks
    products += channels * inner + inner * outer * fold + fold * outer * patch
    products += first * _block_products(inner, config)
    products += fold * second * _block_products(outer, config)
    products += 2 * channels * patch * fold
    return 2 * products


def count_perceptual_params(config: PerceptualConfig, outputs: int) -> int:
    """Count the trainable parameters of a perceptual encoder that says ``outputs`` things."""
    stages = sum((_KERNEL * i + 1) * o for i, o in pairwise([3, *config.widths]))
    return stages + _linear(2 * config.widths[-1], outputs)


def _block(width: int, config: VaeConfig) -> int:
    hidden = config.expansion * width
    gain = width
    return (_SPACE + _TIME) * width + gain + _linear(width, hidden) + _linear(hidden, width)


def _block_products(width: int, config: VaeConfig) -> int:
    return _SPACE * width + 2 * config.expansion * width * width


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
