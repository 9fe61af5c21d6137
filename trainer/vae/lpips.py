"""LPIPS from a local folder: nothing is downloaded, nothing is unpickled.

The folder holds ``lpips.safetensors`` with AlexNet's convolutions under their torchvision names
(``features.0.weight`` ... ``features.10.bias``) and the learned channel weights under those of the
``lpips`` package (``lin0.model.1.weight`` ... ``lin4.model.1.weight``).
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from models.codec.lpips import Lpips

FILE = "lpips.safetensors"
_PLACES = (0, 3, 6, 8, 10)  # of the convolutions among AlexNet's features


def load_lpips(folder: Path) -> Lpips:
    """Load the network, frozen. Raises ValueError where the file is absent or misses a tensor."""
    path = folder / FILE
    remedy = "See docs/vae.md, or use loss.lpips=0."
    if not path.is_file():
        raise ValueError(f"loss.lpips_path={folder}: has no {FILE}. {remedy}")
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). {remedy}") from error
    wanted = {}
    for i, place in enumerate(_PLACES):
        for kind in ("weight", "bias"):
            wanted[f"convolutions.{i}.{kind}"] = f"features.{place}.{kind}"
        wanted[f"weights.{i}"] = f"lin{i}.model.1.weight"
    missing = [name for name in wanted.values() if name not in stored]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing[:3])}. {remedy}")
    network = Lpips()
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    state = {ours: stored[theirs].float() for ours, theirs in wanted.items()}
    for i in range(len(_PLACES)):
        state[f"weights.{i}"] = state[f"weights.{i}"].flatten()
    wrong = [wanted[name] for name, value in state.items() if value.shape != shapes[name]]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} has another shape than AlexNet's. {remedy}")
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()
