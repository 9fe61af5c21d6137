"""Whether stored latents are those that a run's codec and text encoder make; no torch."""

from dataclasses import asdict

from data.dataset.remote import open_root
from data.dataset.shards import read_manifest
from trainer.codec.files import fingerprint
from trainer.config import RunConfig


def check_encoding(run: RunConfig) -> None:
    """Refuse latents that another codec or text encoder made; clips and foreign sets pass."""
    for root in {run.data.root: None} | {m.root or run.data.root: None for m in run.data.mixture}:
        _check_encoding(run, root)


def _check_encoding(run: RunConfig, root: str) -> None:
    folder, _ = open_root(run.data, root)
    made_by = read_manifest(folder) if (folder / "manifest.json").is_file() else {}
    for part, wanted in (("codec", fingerprint(run.codec)), ("text", asdict(run.text))):
        found = made_by.get(part) or wanted
        absent = object()  # an older manifest may lack a key, and a wavelet has no digest
        wrong = [key for key in wanted if found.get(key, absent) != wanted[key]]
        if wrong:
            key = wrong[0]
            raise ValueError(
                f"{part}.{key}={wanted[key]}: must equal {found.get(key)}, with which {root} "
                f"was encoded. Use that, or encode again: kinescale encode --help."
            )
