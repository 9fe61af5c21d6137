"""Clips that no pack holds are cut in time: every frame is met, whatever the layout."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from data.config import DataConfig
from data.dataset.shards import ShardWriter
from data.dataset.tokens import tokens
from data.decode.pool import DecodeError, DecoderPool
from data.loading.loader import Loader, load_fixed
from data.loading.mixture import planner_of
from data.loading.pieces import Piece, pieces_of, whole_of
from tests.data.conftest import encode, info_of, meta, paint

CELL = (4, 16, 16)
LONG, SHORT = (45, 32, 48), (9, 32, 32)  # 12 x 2 x 3 = 72 tokens and 12


@pytest.fixture(scope="module")
def long_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("long")
    for split in ("train", "val"):
        with ShardWriter(root, split, 10**6) as writer:
            for number, shape in enumerate([LONG, SHORT, LONG, SHORT]):
                writer.write(
                    meta(f"{split}-{number}", "video", shape, shots=[20] if shape == LONG else []),
                    encode(paint(*shape, seed=number)), "mp4",
                )  # fmt: skip
    return root


def config_of(root, **changes):
    values = {"root": str(root), "pack_tokens": 30, "packs_per_step": 2, "pool": 4} | changes
    return DataConfig(**values)


@pytest.mark.parametrize("seed", range(20))
def test_pieces_meet_every_frame_and_only_the_joints_twice(seed):
    rng = np.random.default_rng(seed)
    frames, height, width = (int(rng.integers(*ends)) for ends in ((2, 400), (1, 100), (1, 100)))
    info = info_of("clip", "video", (frames, height, width))
    rows = -(-height // 16) * -(-width // 16)
    most = int(rng.integers(2 * rows, 9 * rows))
    parts = pieces_of(info, CELL, most)
    if tokens(frames, height, width, CELL) <= most:
        assert parts == [info]
        return
    assert all(tokens(p.num_frames, height, width, CELL) <= most for p in parts)
    assert parts[0].start_frame == 0
    assert parts[-1].last_frame == frames - 1
    for before, after in pairwise(parts):
        assert after.start_frame == before.last_frame
        assert (before.num_frames - 1) % CELL[0] == 0
    lengths = [-(-(p.num_frames - 1) // 4) for p in parts]
    assert max(lengths) - min(lengths) <= 1
    assert len({p.key for p in parts}) == len(parts)


def test_what_cannot_be_cut_stays_whole():
    still = info_of("still", "image", (1, 320, 320))
    latent = info_of("latent", "latent", (81, 64, 64))
    wide = info_of("wide", "video", (81, 64, 64))
    assert pieces_of(still, CELL, 16) == [still]
    assert pieces_of(latent, CELL, 64) == [latent]
    assert pieces_of(wide, CELL, 31) == [wide]  # two frames of the grid are 32 tokens
    assert len(pieces_of(wide, CELL, 32)) == 20
    with pytest.raises(ValueError, match=r"encoded latents are not. Use at least 336"):
        planner_of(config_of("x"), [latent], [], CELL, 0)


def test_a_piece_keeps_its_shots_and_knows_its_clip():
    info = replace(info_of("clip", "video", (33, 16, 16)), shots=[3, 16, 17, 30])
    first, second = pieces_of(info, CELL, 5)
    assert (first.key, second.key) == ("clip:0", "clip:16")
    assert (first.shots, second.shots) == ([3, 16], [1, 14])
    assert first.duration_seconds == pytest.approx(17 / 24)
    assert whole_of(second) is info
    assert whole_of(info) is info


@pytest.mark.heavy
def test_a_loader_brings_each_piece_once_a_pass_as_the_frames_of_its_clip(long_root):
    loader = Loader(config_of(long_root), "train", CELL, 3, 0, 1)
    with DecoderPool(1, 20.0) as pool:
        seen, frames = Counter(), {}
        while loader.accounting().videos < len(loader.infos):
            for sample in (s for pack in loader.next_step().packs for s in pack.samples):
                seen[sample.info.key, sample.visit] += 1
                frames[sample.info.key] = (sample.info, sample.frames)
        for info, found in frames.values():
            whole = whole_of(info)
            payload = loader.dataset.members[0].read_payload(whole)
            expected = torch.from_numpy(pool.decode(whole, payload).frames)
            first = info.start_frame if isinstance(info, Piece) else 0
            assert torch.equal(found, expected[first : first + info.num_frames])
    loader.close()
    assert set(seen.values()) == {1}
    assert len([i for i in loader.infos if isinstance(i, Piece)]) == 6
    assert loader.accounting().pieces == sum(":" in key for key, _ in seen)
    assert "cut in time" in loader.accounting().table()


@pytest.mark.heavy
def test_a_resumed_loader_goes_on_inside_a_clip_on_another_layout(long_root):
    def keys(step):
        return [[info.key for info, _ in pack] for pack in step.plan]

    whole = Loader(config_of(long_root), "train", CELL, 3, 0, 1)
    expected = [keys(whole.next_step()) for _ in range(6)]
    whole.close()
    first = Loader(config_of(long_root), "train", CELL, 3, 0, 1)
    for _ in range(2):
        first.next_step()
    state = first.state_dict()
    first.close()
    for rank in range(2):
        loader = Loader(config_of(long_root), "train", CELL, 3, rank, 2)
        loader.load_state_dict(state)
        assert [keys(loader.next_step()) for _ in range(4)] == expected[2:]
        loader.close()
    other = Loader(config_of(long_root, pack_tokens=36), "train", CELL, 3, 0, 1)
    with pytest.raises(ValueError, match="must equal the saved loader state's"):
        other.load_state_dict(state)  # other pieces
    other.close()


@pytest.mark.heavy
def test_validation_clips_are_cut_where_a_cell_is_given(long_root):
    whole = load_fixed(config_of(long_root), "val", 0)
    cut = load_fixed(config_of(long_root), "val", 0, CELL)
    assert [len(s.frames) for s in whole].count(45) == 2
    assert max(len(s.frames) for s in cut) <= 17
    assert sum(len(s.frames) - 1 for s in cut) == sum(len(s.frames) - 1 for s in whole)


def test_damage_behind_a_piece_is_still_found():
    frames = paint(45, 32, 48)
    payload = bytearray(encode(frames))
    info = info_of("clip", "video", (45, 32, 48))
    with DecoderPool(1, 20.0) as pool:
        part = pool.submit(info, bytes(payload), (4, 8)).result().frames
        assert part.shape == (5, 32, 48, 3)
        with pytest.raises(DecodeError, match="has 45 frames, not 46"):
            pool.submit(replace(info, num_frames=46), bytes(payload), (4, 8)).result()
        payload[-400:-300] = bytes(100)
        with pytest.raises(DecodeError):
            pool.submit(info, bytes(payload), (4, 8)).result()
