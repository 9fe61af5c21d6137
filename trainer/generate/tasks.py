"""What a request begins with: an image, a video or a mask, as latents that are given or changed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from data.decode.decoders import decode_by_first
from data.words import counted
from models.codec.codec import Codec
from models.spans import frame_mask
from trainer.generate.request import Request, Task

Frames = UInt8[np.ndarray, "F H W 3"]


@dataclass(frozen=True)
class Beginning:
    """What is there before anything is drawn.

    latent: clean values, where they are given or are what is changed; zeros elsewhere.
    given: which tokens stay as they are, None where none does.
    """

    latent: Float[Tensor, "C f h w"]
    given: Bool[Tensor, "f rows columns"] | None = None


@lru_cache(maxsize=4)
def read_video(path: str, key: str) -> Frames:
    """Return a video's frames. Raises ValueError where it is none."""
    frames, _, reasons = decode_by_first(_payload(path, key), ("pyav",), None)
    if frames is None:
        raise ValueError(f"{key}={path}: is no video ({'; '.join(reasons)}). Name a video.")
    return frames


@lru_cache(maxsize=4)
def read_image(path: str, key: str) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image's pixels, turned as its camera was held. Raises ValueError where none."""
    frames, _, reasons = decode_by_first(_payload(path, key), ("pillow",), None)
    if frames is None:
        raise ValueError(f"{key}={path}: is no image ({'; '.join(reasons)}). Name a PNG or JPEG.")
    return frames[0]


def _payload(path: str, key: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{key}={path}: cannot be read ({error.strerror}).") from error


def fitted(frames: Frames, height: int, width: int) -> Frames:
    """Return frames that fill a size: scaled without stretching, what hangs over is cut off."""
    if frames.shape[1:3] == (height, width):
        return frames
    size, way = (width, height), Image.Resampling.LANCZOS
    return np.stack([np.asarray(ImageOps.fit(Image.fromarray(f), size, way)) for f in frames])


def settled(request: Request, said: set[str]) -> Request:
    """Fill in the shape that an image or a video has, where the request does not say one.

    said: the keys that were given.
    """
    if request.video:
        frames = read_video(request.video, "video")
        if not said & {"height", "width"}:
            request.height, request.width = frames.shape[1:3]
        if "num_frames" not in said and request.task in (Task.edit, Task.flow_edit):
            request.num_frames = len(frames)
    elif request.image and not said & {"height", "width"}:
        request.height, request.width = read_image(request.image, "image").shape[:2]
    return request


def trimmed(request: Request, stride: int) -> Request:
    """Leave out the last frames of a video that is changed, where the codec cannot take them."""
    if request.task in (Task.edit, Task.flow_edit):
        request.num_frames -= (request.num_frames - 1) % stride
    return request


def beginning_of(request: Request, codec: Codec) -> Beginning | None:
    """Return what a task begins with, None where it is noise alone.

    Raises ValueError where what is asked for and what is given do not fit.
    """
    return _BEGINNINGS[request.task](request, codec)


def _nothing(request: Request, codec: Codec) -> None:
    return None


def _still(request: Request, codec: Codec) -> Beginning:
    """An image as the first frame, or as the four frames of a later latent."""
    image = read_image(request.image, "image")
    frame = fitted(image[None], request.height, request.width)
    stride = codec.config.stride[0]
    size = codec.config.latent_shape(*request.shape)
    latent = torch.zeros(codec.config.channels, *size)
    numbers: list[int] = []
    for at in request.frames:
        if not -request.num_frames <= at < request.num_frames:
            raise ValueError(f"frames={request.frames}: the clip has frames 0 to {_last(request)}.")
        number = -(-(at % request.num_frames) // stride)
        still = codec.encode(torch.from_numpy(frame.repeat(1 + stride * min(number, 1), 0)))
        latent[:, number] = still[:, -1]
        numbers.append(number)
    return Beginning(latent, _left_to_make(frame_mask(size, numbers), "frames", request.frames))


def _last(request: Request) -> int:
    return request.num_frames - 1


def _forwards(request: Request, codec: Codec) -> Beginning:
    """A video's latents, then those to make."""
    known = _encoded(request.video, "video", request, codec, keep_end=True)
    return _placed(request, codec, {0: known})


def _backwards(request: Request, codec: Codec) -> Beginning:
    """Latents to make, then a video's, whose first frame is coded alone and is made again."""
    return _placed(request, codec, {-1: _later(request.video, "video", request, codec)})


def _between(request: Request, codec: Codec) -> Beginning:
    """One video's latents, those to make, another's."""
    first = _encoded(request.video, "video", request, codec, keep_end=True)
    last = _later(request.next_video, "next_video", request, codec)
    return _placed(request, codec, {0: first, -1: last})


def _later(path: str, key: str, request: Request, codec: Codec) -> Float[Tensor, "C f h w"]:
    """Return a video's latents but the first, which codes one frame alone."""
    known = _encoded(path, key, request, codec, keep_end=False)[:, 1:]
    if not known.shape[1]:
        stride = codec.config.stride[0]
        raise ValueError(
            f"{key}={path}: has {counted(len(read_video(path, key)), 'frame')}, too few for "
            f"task={request.task.value}, which makes the first one again. Use {1 + stride} or more."
        )
    return known


def _placed(request: Request, codec: Codec, parts: dict[int, Tensor]) -> Beginning:
    """Place latents at the beginning (0) and the end (-1) of a clip."""
    size = codec.config.latent_shape(*request.shape)
    latent = torch.zeros(codec.config.channels, *size)
    known = sum(part.shape[1] for part in parts.values())
    if known >= size[0]:
        stride = codec.config.stride[0]
        raise ValueError(
            f"num_frames={request.num_frames}: task={request.task.value} has nothing to add to "
            f"what is given. Use {1 + stride * known} or more."
        )
    numbers: list[int] = []
    for at, part in parts.items():
        first = 0 if at == 0 else size[0] - part.shape[1]
        latent[:, first : first + part.shape[1]] = part
        numbers += range(first, first + part.shape[1])
    return Beginning(latent, frame_mask(size, numbers))


def _encoded(
    path: str, key: str, request: Request, codec: Codec, keep_end: bool
) -> Float[Tensor, "C f h w"]:
    """Encode as many frames as the codec takes, 1 + k strides: the last ones, or the first."""
    frames = read_video(path, key)
    extra = (len(frames) - 1) % codec.config.stride[0]
    frames = frames[extra:] if keep_end else frames[: len(frames) - extra]
    fit = fitted(frames, request.height, request.width)
    return codec.encode(torch.from_numpy(np.ascontiguousarray(fit))).float()


def _changed(request: Request, codec: Codec) -> Beginning:
    """A video that is changed: where a mask is white, or all over."""
    latent = _encoded(request.video, "video", request, codec, keep_end=False)
    size = codec.config.latent_shape(*request.shape)
    if latent.shape[1] != size[0]:
        raise ValueError(
            f"num_frames={request.num_frames}: task={request.task.value} keeps the length of the "
            "video. Leave it out."
        )
    return Beginning(latent, _kept(request, codec, size) if request.mask else None)


def _kept(request: Request, codec: Codec, size: tuple[int, int, int]) -> Tensor:
    """Return the tokens of which no pixel is white in the mask: white spreads to whole tokens."""
    white = torch.from_numpy(read_image(request.mask, "mask")[..., 0] > 127)
    if tuple(white.shape) != (request.height, request.width):
        raise ValueError(
            f"mask={request.mask}: has {white.shape[1]}x{white.shape[0]} pixels, the clip "
            f"{request.width}x{request.height}. Draw it at that size."
        )
    rows, columns = 2 * codec.config.stride[1], 2 * codec.config.stride[2]
    f, h, w = size
    grown = (0, w // 2 * columns - request.width, 0, h // 2 * rows - request.height)
    cells = max_pool2d(pad(white.float()[None, None], grown), (rows, columns))[0]
    return _left_to_make((cells == 0).expand(f, -1, -1), "mask", request.mask)


def _left_to_make(given: Tensor, key: str, value: object) -> Tensor:
    if given.all():
        raise ValueError(f"{key}={value}: leaves nothing to make. Leave some of the clip open.")
    return given


_BEGINNINGS: dict[Task, Callable[[Request, Codec], Beginning | None]] = {
    Task.text_to_video: _nothing,
    Task.loop: _nothing,
    Task.image_to_video: _still,
    Task.extend_forwards: _forwards,
    Task.extend_backwards: _backwards,
    Task.connect: _between,
    Task.edit: _changed,
    Task.flow_edit: _changed,
}
