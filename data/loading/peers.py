"""Packs that one rank of several reads for all of them: a header, then a buffer of bytes a pack.

Ranks that hold parts of one model train on the same packs. One of them opens shards and decodes;
the others get what it made of them, bit for bit, and also what it could not read.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import UInt8
from torch import Tensor

from data.dataset.remote import FetchError
from data.dataset.sample import SampleInfo
from data.decode.pool import DecodeError
from data.loading.batch import Pack, Sample

_FIELDS = ("frames", "latent", "caption_states", "short_caption_states")
_ALIGNED = 8  # bytes: a tensor of any type may begin there

Plan = Sequence[Sequence[tuple[SampleInfo, int]]]


class Peers(Protocol):
    """Ranks that share this rank's packs, seen from one of them."""

    @property
    def reads(self) -> bool:
        """Whether this rank reads for all; exactly one of them does."""
        ...

    def spread(self, buffer: UInt8[Tensor, " n"]) -> None:
        """Overwrite a buffer with the reader's of the same size. Collective."""
        ...


def hand_over(
    peers: Peers, plan: Plan, packs: Sequence[Pack], failure: ValueError | None = None
) -> list[Pack]:
    """Return the reader's packs on every peer; on the reader they are ``packs`` themselves.

    plan: the packs of a step, known everywhere. packs: of the reader; empty on others. failure: the
    DecodeError or FetchError that kept the reader from reading, which all then raise. Collective.
    """
    header = _header_of(plan, packs, failure) if peers.reads else {}
    header = _spread_header(peers, header)
    if "failure" in header:
        kind, arguments = header["failure"]
        raise (DecodeError if kind == "decode" else FetchError)(*arguments)
    made = []
    for number, told in enumerate(header["packs"]):
        buffer = torch.empty(told["nbytes"], dtype=torch.uint8)
        if peers.reads:
            for tensor, part in zip(_tensors_of(packs[number]), _parts(told, buffer), strict=True):
                part.copy_(tensor)
        peers.spread(buffer)
        made.append(packs[number] if peers.reads else _pack_of(told, plan, buffer))
    return made


def _header_of(plan: Plan, packs: Sequence[Pack], failure: ValueError | None) -> dict[str, Any]:
    """Tell all of packs but the bytes of their tensors, in JSON types."""
    if isinstance(failure, DecodeError):
        return {"failure": ["decode", [failure.key, failure.reason]]}
    if failure is not None:
        return {"failure": ["fetch", [str(failure)]]}
    told = []
    for pack in packs:
        places = {(info.key, visit): i for i, (info, visit) in enumerate(plan[pack.number])}
        tensors, end = [], 0
        for tensor in _tensors_of(pack):
            tensors.append([str(tensor.dtype).removeprefix("torch."), list(tensor.shape), end])
            end += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        samples = [
            [places[s.info.key, s.visit], s.decoder, [getattr(s, f) is not None for f in _FIELDS]]
            for s in pack.samples
        ]
        told.append(
            {
                "number": pack.number,
                "budget": pack.budget,
                "dropped": pack.dropped,
                "samples": samples,
                "tensors": tensors,
                "nbytes": end,
            }
        )
    return {"packs": told}


def _spread_header(peers: Peers, header: dict[str, Any]) -> dict[str, Any]:
    text = torch.tensor(list(json.dumps(header).encode()), dtype=torch.uint8)
    size = torch.tensor([len(text)])
    peers.spread(size.view(torch.uint8))
    text = text if peers.reads else torch.empty(int(size), dtype=torch.uint8)
    peers.spread(text)
    found: dict[str, Any] = json.loads(text.numpy().tobytes())
    return found


def _tensors_of(pack: Pack) -> list[Tensor]:
    tensors = (getattr(sample, field) for sample in pack.samples for field in _FIELDS)
    return [tensor for tensor in tensors if tensor is not None]


def _parts(told: dict[str, Any], buffer: Tensor) -> Iterator[Tensor]:
    """Yield the tensors that lie in a pack's buffer, in order."""
    for name, shape, start in told["tensors"]:
        dtype: torch.dtype = getattr(torch, name)
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        yield buffer[start : start + nbytes].view(dtype).view(shape)


def _pack_of(told: dict[str, Any], plan: Plan, buffer: Tensor) -> Pack:
    parts = _parts(told, buffer)
    samples = []
    for place, decoder, present in told["samples"]:
        held = zip(_FIELDS, present, strict=True)
        tensors = {field: next(parts) if there else None for field, there in held}
        info, visit = plan[told["number"]][place]
        samples.append(Sample(info, visit, decoder=decoder, **tensors))
    dropped = [(key, reason) for key, reason in told["dropped"]]
    return Pack(samples, told["budget"], dropped, told["number"])
