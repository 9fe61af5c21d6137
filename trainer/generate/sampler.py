"""From requests to clips: many of any shape in packs of one budget, each with its own settings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from models.codec.codec import Codec
from models.dit.embed import patchify, position_features, unpatchify
from models.objective import Method, Objective, Predict, Walk, build_objective
from models.pack import TokenPack, join
from models.sampling import Guidance, Order, draw, staircase, turning
from models.spans import given_tokens
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator, PackItem
from trainer.generate.forcing import Stairs, stairs_of
from trainer.generate.request import Request, Task
from trainer.generate.tasks import Beginning, beginning_of
from trainer.rng import normal

# Drawing keeps no gradients: it takes a few times the pack that the run was trained with.
PACKS = 4
Told = Callable[[float, float], None]


def _silent(done: float, total: float) -> None:
    pass


def generate(
    run: RunConfig, model: Predict, requests: list[Request], pack_tokens: int = 0
) -> list[np.ndarray]:
    """Sample requests side by side; return uint8 frames (F, H, W, 3) for each."""
    return list(draw_clips(run, model, requests, pack_tokens))


def draw_clips(
    run: RunConfig,
    model: Predict,
    requests: list[Request],
    pack_tokens: int = 0,
    told: Told = _silent,
    device: torch.device | None = None,
) -> Iterator[np.ndarray]:
    """Yield uint8 frames (F, H, W, 3) in the order of the requests, each when it is there.

    pack_tokens: rows of a forward; 0 takes four times those of training. told: called with the
    evaluations done and all of them, weighed by their tokens. device: where the network lies.
    """
    sampler = Sampler(run, model, pack_tokens, device)
    held: dict[int, Tensor] = {}
    latents = sampler.draw(requests, told)
    for number, request in enumerate(requests):
        while number not in held:
            other, latent = next(latents)
            held[other] = latent
        yield decoded(sampler.collator.codec, request, held.pop(number))


def parties_of(
    run: RunConfig, requests: list[Request], pack_tokens: int = 0
) -> list[list[Request]]:
    """Return the requests in parties that a pack holds, in their order.

    What is drawn in one pack changes the rounding of what lies beside it, so parties, and not
    clips, are what several processes share.
    """
    room, most = 0, pack_tokens or PACKS * run.data.pack_tokens
    parties: list[list[Request]] = []
    for request in requests:
        f, h, w = run.codec.latent_shape(request.num_frames, request.height, request.width)
        tokens = f * (h // 2) * (w // 2) * (2 if request.is_guided else 1)
        if not parties or tokens > room:
            parties.append([])
            room = most
        parties[-1].append(request)
        room -= tokens
    return parties


def decoded(codec: Codec, request: Request, latent: Float[Tensor, "C f h w"]) -> np.ndarray:
    """Return the frames of a latent.

    The first latent frame codes one frame alone. A loop has none such: it is decoded behind its own
    last one, whose frame is then dropped.
    """
    if request.task is Task.loop:
        latent = torch.cat([latent[:, -1:], latent], dim=1)
    frames = codec.decode(latent, request.height, request.width).numpy()
    return frames[1:] if request.task is Task.loop else frames


@dataclass(frozen=True)
class Start:
    """Where a request starts: noise, what is there beside it, and its first frame's number.

    first: of the latent frame in the whole clip, of which this may be a window; 0 codes one frame
    alone.
    """

    noise: Float[Tensor, "C f h w"]
    beginning: Beginning | None
    first: int = 0

    def window(self, frames: slice) -> "Start":
        """Return a part of the latent frames."""
        whole = self.beginning
        part = None
        if whole is not None:
            given = None if whole.given is None else whole.given[frames]
            part = Beginning(whole.latent[:, frames], given)
        return Start(self.noise[:, frames], part, self.first + frames.start)


class Sampler:
    """Draws requests of one run. device: where its network lies, by default the CPU."""

    def __init__(
        self,
        run: RunConfig,
        model: Predict,
        pack_tokens: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self._device = device or torch.device("cpu")
        self.collator = Collator(run.codec, run.text, device)
        self._run, self._model = run, model
        self._objective: Objective = build_objective(run.objective)
        self._pack_tokens = pack_tokens or PACKS * run.data.pack_tokens
        self._counted, self._expected = 0, 0  # tokens moved one evaluation on

    def draw(
        self,
        requests: list[Request],
        told: Told = _silent,
        beginnings: Sequence[Beginning | None] | None = None,
    ) -> Iterator[tuple[int, Float[Tensor, "C f h w"]]]:
        """Yield (number, latent) of each request as it arrives.

        beginnings: what each one begins with, where its latents are known already; else it is read
        from the files that the request names.
        """
        begun = beginnings or [self._read(request) for request in requests]
        starts = [self._start(*each) for each in zip(requests, begun, strict=True)]
        self._prototypes(requests, starts)
        self._counted, self._expected = 0, 0
        self._windows(requests, starts, told)
        yield from self._together(requests, starts, told)

    def _windows(self, requests: list[Request], starts: list[Start], told: Told) -> None:
        """Draw long clips window by window, until nothing of them is left to make.

        What one window drew is given to the next as the latents that it is: nothing is decoded.
        """
        while True:
            cuts = {n: cut for n, r in enumerate(requests) if (cut := self._cut(r, starts[n]))}
            if not cuts:
                return
            asked = [requests[n] for n in cuts]
            parts = [starts[n].window(cut) for n, cut in cuts.items()]
            numbers = list(cuts)
            for part, latent in self._together(asked, parts, told):
                number = numbers[part]
                starts[number] = _filled(starts[number], cuts[number], latent)

    def _cut(self, request: Request, start: Start) -> slice | None:
        """Return the latent frames of the next window; None where all is there, or fits in one."""
        frames = start.noise.shape[1]
        size = 1 + (request.window - 1) // self._run.codec.stride[0]
        if not request.window or frames <= size:
            return None
        if size < 2:
            raise ValueError(
                f"window={request.window}: must hold two latents. Use "
                f"{1 + self._run.codec.stride[0]} or more."
            )
        free = list(range(frames))
        if start.beginning is not None and start.beginning.given is not None:
            free = (~start.beginning.given.flatten(1).all(1)).nonzero().flatten().tolist()
        if not free:
            return None
        if request.task is Task.extend_backwards:
            end = min(frames, free[-1] + 1 + size // 2)
            return slice(max(0, end - size), end)
        first = max(0, free[0] - size // 2)
        return slice(first, min(frames, first + size))

    def _together(
        self, requests: list[Request], starts: list[Start], told: Told
    ) -> Iterator[tuple[int, Float[Tensor, "C f h w"]]]:
        """Draw what is left to make of each; what is given whole is there already."""
        numbers = [n for n, start in enumerate(starts) if not _is_whole(start)]
        orders = []
        for n in numbers:
            request, start = requests[n], starts[n]
            f, h, w = start.noise.shape[1:]
            stairs = stairs_of(request, start.beginning, (f, h, w))
            order = self._order(request, start, stairs)
            behind = request.lag * (len(stairs.parts) - 1) if stairs else 0
            self._expected += order.pack.num_tokens * (evaluations(request) + behind)
            orders.append(order)

        def count(tokens: int) -> None:
            self._counted += tokens
            told(self._counted, self._expected)

        for n, start in enumerate(starts):
            if start.beginning is not None and n not in numbers:
                yield n, start.beginning.latent
        for number, rows in draw(self._model, orders, self._pack_tokens, count):
            n = numbers[number]
            yield n, _kept(starts[n], unpatchify(rows.cpu(), *starts[n].noise.shape[1:]))

    def prototypes(self, requests: list[Request]) -> list[Float[Tensor, "C f h w"]]:
        """Return the small clips that these requests are drawn from, which all have one."""
        noises = [self._shrunk(each, self._start(each, None).noise) for each in requests]
        small = [request.small for request in requests]
        drawn = self._together(small, [Start(noise, None) for noise in noises], _silent)
        return [latent for _, latent in sorted(drawn, key=lambda found: found[0])]

    def _prototypes(self, requests: list[Request], starts: list[Start]) -> None:
        """Draw what is asked for small first, and let the full clip begin from that."""
        numbers = [n for n, request in enumerate(requests) if request.prototype > 1]
        found = self.prototypes([requests[n] for n in numbers])
        for n, latent in zip(numbers, found, strict=True):
            large = interpolate(latent, scale_factor=requests[n].prototype, mode="nearest")
            starts[n] = replace(starts[n], beginning=Beginning(large))

    def _shrunk(self, request: Request, noise: Float[Tensor, "C f h w"]) -> Tensor:
        """Return a prototype's noise, which is the full clip's."""
        times = request.prototype
        if [side / times for side in noise.shape[2:]] != list(self._blank(request.small).size[1:]):
            raise ValueError(
                f"prototype={times}: cannot be for {request.height}x{request.width} pixels. Use a "
                f"height and a width that are multiples of "
                f"{[2 * times * stride for stride in self._run.codec.stride[1:]]}."
            )
        return shrunk(noise, times)

    def _read(self, request: Request) -> Beginning | None:
        return beginning_of(request, self.collator.codec) if request.begins else None

    def _start(self, request: Request, beginning: Beginning | None) -> Start:
        """Return a request's noise, which depends on (seed, prompt, shape) alone."""
        item = self._blank(request)
        name = f"{request.prompt}/{item.size}"
        noise = normal(tuple(item.tokens.shape), request.seed, "generate", name, 0)
        return Start(unpatchify(noise, *item.size), beginning)

    def _order(self, request: Request, start: Start, stairs: Stairs | None) -> Order:
        """Return a request as the sampler sees it."""
        noise, tokens = patchify(start.noise).to(self._device), None
        item = self._item(request, start)
        if start.beginning is not None:
            tokens = patchify(start.beginning.latent)
            given = start.beginning.given
            item = replace(
                item, tokens=tokens, spans=None if given is None else given_tokens(given)
            )
        if stairs is not None:
            item = replace(item, spans=stairs.spans)
        toward, away = [request.prompt], [request.negative]
        if request.task is Task.flow_edit:
            toward, away = [request.source_prompt, request.prompt], ["", request.negative]
            seen = (request.steps * len(noise), noise.shape[1])
            noises = normal(seen, request.seed, "generate-edit", request.prompt, 0)
            clean = None if tokens is None else tokens.to(self._device)
            walk = self._objective.walk(noises.to(self._device), len(noise), request.route, clean)
        else:
            if tokens is not None:
                noise = torch.lerp(noise, tokens.to(self._device), request.route.start)
            walk = self._walk(request, start, noise, stairs)
        if request.task is Task.loop:
            walk = turning(walk, len(noise) // item.size[0])
        follows = request.task is Task.loop or start.first > 0
        pack, against = (
            join([self._alone(request, item, text, follows) for text in texts]).to(self._device)
            for texts in (toward, away)
        )
        low, high = request.guidance_range
        guidance = Guidance(request.guidance, low, high, request.cfg_zero)
        return Order(walk, pack, against if request.is_guided else None, guidance)

    def _walk(
        self, request: Request, start: Start, noise: Float[Tensor, "S V"], stairs: Stairs | None
    ) -> Walk:
        """Return the way of a clip, or of its parts one behind the other."""
        if stairs is None:
            return self._objective.walk(noise, len(noise), request.route)
        parts, rest = [part.to(noise.device) for part in stairs.parts], list[float]()
        if start.beginning is not None and len(stairs.given):
            # Noise of its own: a frame's first noise is no longer independent of what it became.
            clean, name = patchify(start.beginning.latent), f"{request.prompt}/{start.first}"
            grain = normal(tuple(clean.shape), request.seed, "generate-given", name, 0)
            stood = torch.lerp(grain, clean, request.given_at)[stairs.given]
            noise = noise.index_copy(0, stairs.given.to(noise.device), stood.to(noise.device))
            rest = [request.given_at]
        walks = [self._objective.walk(noise[p], len(noise), request.route) for p in parts]
        return staircase(noise, parts, walks, request.lag, rest)

    def _blank(self, request: Request) -> PackItem:
        frames, stride = request.num_frames, self._run.codec.stride[0]
        if request.task is Task.loop:  # as many latent frames, none of which is a first one
            if frames % stride:
                raise ValueError(
                    f"num_frames={frames}: task=loop needs whole latents, a multiple of {stride}. "
                    f"Use {max(1, frames // stride) * stride}."
                )
            frames -= stride - 1
        return self.collator.blank(
            (frames, request.height, request.width), request.fps, request.prompt
        )

    def _item(self, request: Request, start: Start) -> PackItem:
        """Return the item of a whole clip, or of a window's frames."""
        frames = 1 + self._run.codec.stride[0] * (start.noise.shape[1] - 1)
        shape = frames, request.height, request.width
        return self.collator.blank(shape, request.fps, request.prompt)

    def _alone(self, request: Request, item: PackItem, text: str, follows: bool) -> TokenPack:
        """Return a clip as a pack of its own; an empty text is no caption.

        follows: whether frames lie before it, so that none of its latents codes one frame alone.
        """
        width = item.caption.shape[1]
        states = self.collator.caption(text) if text.strip() else torch.zeros(0, width)
        pack = self.collator.pack(
            [replace(item, caption=states, short_caption=states)], [CaptionUse.dense]
        )
        if not follows:
            return pack
        positions = pack.positions + torch.tensor([1, 0, 0])
        extent = (self._run.codec.stride[0] + 1, item.size[1] // 2, item.size[2] // 2)
        place = position_features(positions, extent)
        periods = torch.full_like(pack.segment, item.size[0]) if request.task is Task.loop else None
        return replace(pack, positions=positions, place=place, periods=periods)


def _kept(start: Start, latent: Float[Tensor, "C f h w"]) -> Float[Tensor, "C f h w"]:
    """Return a drawn latent with what was given as it was given, wherever it was looked at."""
    given = None if start.beginning is None else start.beginning.given
    if start.beginning is None or given is None:
        return latent
    tokens = given.repeat_interleave(2, 1).repeat_interleave(2, 2)  # (f, h, w)
    return torch.where(tokens, start.beginning.latent, latent)


def _is_whole(start: Start) -> bool:
    given = None if start.beginning is None else start.beginning.given
    return given is not None and bool(given.all())


def _filled(start: Start, frames: slice, latent: Float[Tensor, "C f h w"]) -> Start:
    """Return a start that is given what a window of its frames has become."""
    size = start.noise.shape
    known = torch.zeros_like(start.noise)
    given = torch.zeros(size[1], size[2] // 2, size[3] // 2, dtype=torch.bool)
    if start.beginning is not None:
        known = start.beginning.latent.clone()
        given = given if start.beginning.given is None else start.beginning.given.clone()
    known[:, frames], given[frames] = latent, True
    return replace(start, beginning=Beginning(known, given))


def shrunk(noise: Float[Tensor, "C f h w"], times: int) -> Float[Tensor, "C f h w"]:
    """Average noise over squares and keep its variance."""
    return avg_pool2d(noise, times) * times


def evaluations(request: Request) -> int:
    """Return how often a request asks for its velocity, to a few."""
    steps = max(1, round((request.steps - request.route.still) * (1 - request.route.start)))
    return 2 * steps - 1 if request.method is Method.heun else steps
