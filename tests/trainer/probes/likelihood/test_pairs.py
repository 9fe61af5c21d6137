"""Crossed pairs as tokens: made of the same four halves, and refused where they are not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.config import MemberConfig
from data.worlds.tiny.registry import TINY_WORLDS, tiny_world
from models.codec.pixels import PixelCodec
from models.dit.embed import unpatchify
from trainer.probes.likelihood.pairs import (
    check_halves,
    check_tokens,
    draw_pairs,
    first_frames,
    first_tokens,
    lawful_clips,
    reversed_pairs,
    seen_worlds,
)

from ...tiny_runs import write_tiny
from .conftest import strip_config


@pytest.fixture(scope="module")
def config():
    run = strip_config(Path("none"))
    return run, PixelCodec(run.codec)


@pytest.mark.parametrize("name", [n for n in TINY_WORLDS if not n.startswith("strip")] + ["strip"])
def test_pairs_of_every_property_are_made_of_the_same_halves(config, name: str) -> None:
    world = tiny_world(name)
    for prop in (*world.laws, *world.free):
        (pair,) = draw_pairs(*config, world, prop, 1, 0)  # which checks them
        first = first_tokens(pair.clips["aa"], first_frames(2))
        aa, bb = pair.clips["aa"].tokens, pair.clips["bb"].tokens
        assert not torch.equal(aa[:first], bb[:first])
        assert not torch.equal(aa[first:], bb[first:])
        assert sum(len(pair.clips[n].tokens) for n in ("aa", "bb", "ab", "ba")) == 4 * len(aa)


def test_pairs_come_back_with_their_seed_and_others_with_another(config) -> None:
    def tokens(seed: int) -> torch.Tensor:
        pairs = draw_pairs(*config, tiny_world("strip"), "colour", 2, seed)
        return torch.stack([pair.clips["ab"].tokens for pair in pairs])

    assert torch.equal(tokens(0), tokens(0))
    assert not torch.equal(tokens(0), tokens(1))
    assert not torch.equal(tokens(0)[0], tokens(0)[1])


def test_halves_that_no_other_clip_of_the_pair_has_are_refused(config) -> None:
    (pair,) = draw_pairs(*config, tiny_world("strip"), "colour", 1, 0)
    first = first_tokens(pair.clips["aa"], first_frames(2))
    tokens = {name: clip.tokens.clone() for name, clip in pair.clips.items()}
    check_halves("strip", "colour", tokens, first)
    tokens["ba"][-1, -1] += 0.01
    with pytest.raises(ValueError, match="clip ba of strip is not made of the halves"):
        check_halves("strip", "colour", tokens, first)


def test_a_half_that_is_the_same_in_both_is_refused(config) -> None:
    (pair,) = draw_pairs(*config, tiny_world("strip"), "colour", 1, 0)
    first = first_tokens(pair.clips["aa"], first_frames(2))
    aa = pair.clips["aa"].tokens
    mixed = torch.cat([aa[:first], pair.clips["bb"].tokens[first:]])
    with pytest.raises(ValueError, match="nothing is crossed"):
        check_halves("strip", "colour", {"aa": aa, "bb": mixed, "ab": mixed, "ba": aa}, first)


def test_pairs_played_backwards_begin_with_their_ends(config) -> None:
    run, codec = config
    pairs = draw_pairs(run, codec, tiny_world("strip"), "lane", 1, 0)
    (back,) = reversed_pairs(pairs, codec, run.text.width)
    for name, clip in pairs[0].clips.items():
        frames = codec.decode(unpatchify(clip.tokens, *clip.size), 8, 32)
        turned = codec.decode(unpatchify(back.clips[name].tokens, *clip.size), 8, 32)
        assert torch.equal(turned, frames.flip(0))


def test_lawful_clips_are_not_those_of_the_training_data(config) -> None:
    run, codec = config
    world = tiny_world("strip")
    found = lawful_clips(run, codec, world, 2, 0)
    assert not torch.equal(found[0].tokens, found[1].tokens)
    assert len(found[0].caption_for("dense")) == 0


def test_tokens_that_do_not_divide_a_world_are_refused(config) -> None:
    run = config[0]
    coarse = replace(run, codec=replace(run.codec, stride=[2, 8, 8]))
    with pytest.raises(ValueError, match="must divide the world strip"):
        check_tokens(coarse, tiny_world("strip"))
    long = replace(run, codec=replace(run.codec, stride=[8, 2, 2]))
    with pytest.raises(ValueError, match="tokens of 8 frames"):
        check_tokens(long, tiny_world("strip"))
    for world in TINY_WORLDS.values():
        check_tokens(run, world)


def test_a_mixture_shows_its_worlds_and_their_laws(tmp_path: Path) -> None:
    codec = strip_config(tmp_path).codec
    lawful = write_tiny(tmp_path / "a", codec)
    twin = write_tiny(tmp_path / "b", codec, lawless="all")
    data = strip_config(lawful).data
    assert seen_worlds(data).worlds == {"strip": {""}}
    both = replace(data, mixture=[MemberConfig(), MemberConfig(root=str(twin))])
    assert seen_worlds(both).worlds == {"strip": {"", "all"}}
