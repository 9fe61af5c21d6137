"""A run over several roots: its name, its horizon, and latents that do not match."""

import pytest
import torch
from safetensors.torch import save

from data.dataset.shards import ShardWriter, write_manifest
from data.loading.mixture import read_mixture
from tests.data.conftest import meta
from trainer.config import compose_run
from trainer.diffusion.encoding import check_encoding
from trainer.diffusion.horizon import flops_per_token, plan_horizon
from trainer.identity import run_name


@pytest.fixture
def roots(tmp_path):
    """Give two datasets of latents whose clips have other lengths, and so other FLOPs a token."""
    for name, frames in (("short", 1), ("long", 5)):
        with ShardWriter(tmp_path / name, "train", 10**6) as writer:
            for i in range(12):
                latent = torch.zeros(4, frames, 8, 8)
                made = meta(f"{name}-{i}", "latent", (1 + 4 * (frames - 1), 64, 64))
                writer.write(made, save({"latent": latent}), "safetensors")
        write_manifest(tmp_path / name, {"codec": {}, "text": {}})
    return tmp_path


def run_of(roots, mixture):
    common = ["experiment=cpu_smoke", f"data.root={roots}/short", "data.pack_tokens=512"]
    return compose_run([*common, f"data.mixture={mixture}"])


def test_members_and_weights_are_part_of_the_name(roots):
    mixtures = [
        "[]",
        f"[{{root:{roots}/long}}]",
        f"[{{root:{roots}/long,weight:2}},{{source:pain*}}]",
        f"[{{root:{roots}/long,weight:3}},{{source:pain*}}]",
    ]
    assert len({run_name(run_of(roots, mixture)) for mixture in mixtures}) == 4


def test_the_horizon_counts_flops_in_the_weights_of_the_members(roots):
    found = []
    for weight in (1, 9):
        run = run_of(roots, f"[{{weight:1}},{{root:{roots}/long,weight:{weight}}}]")
        dataset = read_mixture(run.data, "train")
        horizon = plan_horizon(run, dataset.infos, dataset.spans)
        short, long = (flops_per_token(run, dataset.infos[s.start : s.stop]) for s in dataset.spans)
        expected = (short + weight * long) / (1 + weight)
        assert horizon.step_flops / horizon.step_tokens == pytest.approx(expected)
        found.append(expected)
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_a_member_that_another_codec_made_is_refused(roots):
    run = run_of(roots, f"[{{weight:1}},{{root:{roots}/long}}]")
    check_encoding(run)
    write_manifest(roots / "long", {"codec": {"stride": [9, 9, 9]}, "text": {}})
    with pytest.raises(ValueError, match=r"must equal .*with which .*/long was encoded"):
        check_encoding(run)
