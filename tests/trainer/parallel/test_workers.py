"""Several processes share requests and clips, and write what one of them alone would write."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.codec.codec import VaeCodec
from models.codec.vae import Vae
from models.config import CodecConfig, CodecKind, VaeConfig
from trainer.codec.build import OnDevice
from trainer.config import load_run
from trainer.encode.encode import main as encode
from trainer.generate.generate import load_model
from trainer.generate.generate import main as generate
from trainer.generate.request import Request, Task
from trainer.generate.sampler import Sampler, parties_of
from trainer.probes.score import main as score

from ..encode.test_encode import TEXT, write_clips
from .worlds import run_world

pytestmark = pytest.mark.dist
ROOM = 60  # tokens of a forward: the requests below are several parties


def requests_in(folder: Path) -> list[dict[str, object]]:
    """Return requests of several shapes and steps."""
    common = {"height": 32, "width": 48, "steps": 2, "num_frames": 5}
    clips = [
        {"out": str(folder / f"{seed}.mp4"), "prompt": "a blob", **common, "seed": seed}
        for seed in range(6)
    ]
    still = {"out": str(folder / "still.png"), "prompt": "two", **common, "num_frames": 1}
    return [*clips, still, {"out": str(folder / "long.mp4"), **common, "num_frames": 17}]


def work(run: Path, clips: Path, out: Path) -> None:
    """Draw, encode and score as one of the workers there are."""
    requests = out / "requests.json"
    assert generate([f"run={run}", f"requests={requests}", f"pack_tokens={ROOM}"]) == 0
    told = [f"out={out / 'loss.json'}", "samples=7", "noise_seeds=[3]"]
    assert score([f"run={run}", *told]) == 0
    shared = [f"data.root={clips}", f"out={out / 'latents'}", "parallel.device=cpu", *TEXT]
    assert encode(shared) == 0


@pytest.fixture(scope="module")
def written(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """Return the files that one worker wrote, and those that two wrote."""
    root = tmp_path_factory.mktemp("workers")
    clips, found = write_clips(root / "clips"), []
    for world in (1, 2):
        out = root / "out"
        out.mkdir()
        (out / "requests.json").write_text(json.dumps(requests_in(out)))
        run_world(world, "tests.trainer.parallel.test_workers:work", trained, clips, out)
        files = [path for path in out.rglob("*") if path.is_file()]
        found.append({str(path.relative_to(out)): path.read_bytes() for path in files})
        out.rename(root / f"out-{world}")
    return found


def test_two_workers_write_the_files_of_one_bit_for_bit(written: list[dict[str, bytes]]) -> None:
    one, two = written
    assert one.keys() == two.keys()
    assert {"0.mp4", "still.png", "loss.json", "latents/train/index.jsonl"} <= one.keys()
    assert any(name.startswith("latents/train/shard-000000-") for name in one)
    assert [name for name in one if one[name] != two[name]] == []


def test_parties_depend_on_requests_and_the_room_of_a_pack_alone(trained: Path) -> None:
    run, folder = load_run(trained), Path("x")
    requests = [Request(**{**request, "method": "euler"}) for request in requests_in(folder)]
    parties = parties_of(run, requests, ROOM)
    assert [request for party in parties for request in party] == requests
    assert len(parties) > 2
    assert [len(party) for party in parties_of(run, requests, 1)] == [1] * len(requests)
    assert len(parties_of(run, requests, 10**6)) == 1


# --- a device of shapes alone: what lies there cannot come back, and tells where things are -------

META = torch.device("meta")


def test_what_the_sampler_asks_lies_where_the_network_does(trained: Path, tmp_path: Path) -> None:
    run, model = load_model(trained)
    common = {"num_frames": 5, "height": 32, "width": 48, "steps": 2}
    source = str(tmp_path / "source.mp4")
    assert (
        generate([f"run={trained}", f"out={source}", *(f"{k}={v}" for k, v in common.items())]) == 0
    )
    model.to(META)  # type: ignore[attr-defined]
    sampler = Sampler(run, model, device=META)
    edit = {"task": Task.flow_edit, "video": source, "source_prompt": "b"}
    for extra in ({}, edit, {"task": Task.edit, "video": source, "strength": 0.5}):
        request = Request("a.mp4", prompt="a", guidance=2.0, **common, **extra)
        order = sampler._order(request, sampler._start(request, sampler._read(request)), None)
        assert order.against is not None
        x, _ = order.walk.send(None)  # type: ignore[arg-type]
        held = [x, *vars(order.pack).values(), *vars(order.against).values()]
        tensors = [value for value in held if isinstance(value, Tensor)]
        assert len(tensors) > 10
        assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_codec_on_a_device_is_given_clips_and_latents_there() -> None:
    config = CodecConfig(kind=CodecKind.vae, stride=[4, 8, 8], channels=4)
    config.mean, config.spread = [0.0] * 4, [1.0] * 4
    vae = Vae(VaeConfig(channels=4))
    codec = OnDevice(VaeCodec(config, vae), META)

    def note(module: torch.nn.Module, inputs: tuple[object, ...]) -> None:
        seen.extend(x for x in inputs if isinstance(x, Tensor))

    for module, use in (
        (vae.encoder, lambda: codec.encode(torch.zeros(5, 32, 32, 3, dtype=torch.uint8))),
        (vae.decoder, lambda: codec.decode(torch.zeros(4, 2, 4, 4), 32, 32)),
    ):
        seen: list[Tensor] = []
        module.register_forward_pre_hook(note)
        with pytest.raises(NotImplementedError, match="out of meta tensor"):
            use()
        assert seen
        assert {tensor.device.type for tensor in seen} == {"meta"}
