"""Planned samples become tensors: payload bytes, then latents here or frames by decoders."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import safetensors
import torch
from safetensors.torch import load

from data.config import DataConfig
from data.dataset.remote import FetchError
from data.dataset.sample import SampleInfo
from data.dataset.table import media_of
from data.decode.pool import Decoded, DecodeError, DecoderPool
from data.loading.batch import Sample
from data.loading.mixture import Member, read_split
from data.loading.pieces import Piece, whole_of

FETCH_THREADS = 4  # shards of a remote dataset that are fetched at the same time


class SampleReader:
    """Read planned samples: payload bytes, then latents here or frames by decoders.

    ``infos`` tells whether decoders are needed; ``home`` is where samples lie for which ``read``
    is given no member, by default ``split`` of data.root.
    """

    def __init__(
        self,
        config: DataConfig,
        split: str,
        infos: Sequence[SampleInfo],
        home: Member | None = None,
    ) -> None:
        has_pixels = media_of(infos) != {"latent"}
        if has_pixels and config.decode_workers < 1:
            raise ValueError(
                f"data.decode_workers={config.decode_workers}: must be at least 1 where the split "
                f"({split}) holds video or images. Use 1."
            )
        self.home = home or read_split(config, split).members[0]
        workers = config.decode_workers if has_pixels else 0
        self.pool = DecoderPool(workers, config.decode_timeout_seconds)
        self._fetchers: ThreadPoolExecutor | None = None

    def read(
        self, planned: list[tuple[SampleInfo, int]], members: Sequence[Member] | None = None
    ) -> list[Sample | DecodeError]:
        """Read samples in order; one that cannot be read leaves its error in its place.

        Raises FetchError where a remote dataset cannot be reached.
        """
        infos = [info for info, _ in planned]
        places = members or [self.home] * len(planned)
        if any(member.cache is not None for member in places):
            self._fetchers = self._fetchers or ThreadPoolExecutor(FETCH_THREADS, "fetch")
            started = list(self._fetchers.map(self._start, infos, places))
        else:
            started = list(map(self._start, infos, places))
        return [self._finish(*visit, found) for visit, found in zip(planned, started, strict=True)]

    def _start(self, info: SampleInfo, member: Member) -> bytes | Future[Decoded] | DecodeError:
        try:
            payload = member.read_payload(whole_of(info))
        except FetchError:
            raise
        except (ValueError, OSError) as error:
            return DecodeError(info.key, str(error))
        if info.media == "latent":
            return payload
        part = (info.start_frame, info.last_frame) if isinstance(info, Piece) else None
        return self.pool.submit(whole_of(info), payload, part)

    def _finish(
        self, info: SampleInfo, visit: int, found: bytes | Future[Decoded] | DecodeError
    ) -> Sample | DecodeError:
        if isinstance(found, DecodeError):
            return found
        try:
            if isinstance(found, bytes):
                latent, caption, short = parse_latent(info, found)
                return Sample(info, visit, None, latent, caption, "safetensors", short)
            decoded = found.result()
        except DecodeError as error:
            return error
        frames = torch.from_numpy(decoded.frames)  # (F, H, W, 3)
        return Sample(info, visit, frames, None, None, decoded.decoder)

    def close(self) -> None:
        """End the decoder processes."""
        if self._fetchers is not None:
            self._fetchers.shutdown(cancel_futures=True)
        self.pool.close()


def parse_latent(
    info: SampleInfo, payload: bytes
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return ``latent`` (C, F, H, W), ``caption`` and ``short_caption`` (L, D) of a payload.

    The captions are None where the safetensors lack them.

    Raises DecodeError where the payload is no safetensors or its tensors have other shapes.
    """
    try:
        tensors = load(payload)
    except safetensors.SafetensorError as error:
        raise DecodeError(info.key, f"no safetensors: {error}") from error
    latent = tensors.get("latent")
    if latent is None or latent.dim() != 4 or not latent.is_floating_point():
        raise DecodeError(info.key, "holds no floating-point 'latent' (C, F, H, W)")
    captions = []
    for name in ("caption", "short_caption"):
        states, length = tensors.get(name), getattr(info, f"{name}_tokens")
        if states is not None and (states.dim() != 2 or states.shape[0] != length):
            shape = tuple(states.shape)
            raise DecodeError(
                info.key, f"{name!r} has shape {shape}, not ({length}, D) of the index"
            )
        captions.append(states)
    return latent, captions[0], captions[1]
