"""From requests to clips: many of any shape in packs of one budget, each with its own settings."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from models.dit.embed import unpatchify
from models.network import Network
from models.objective import Method, Objective, build_objective
from models.pack import TokenPack
from models.sampling import Guidance, Order, draw
from trainer.config import CaptionUse, RunConfig
from trainer.diffusion.collate import Collator, PackItem
from trainer.generate.request import Request
from trainer.rng import normal

# Drawing keeps no gradients: it takes a few times the pack that the run was trained with.
PACKS = 4


def generate(
    run: RunConfig, model: Network, requests: list[Request], pack_tokens: int = 0
) -> list[np.ndarray]:
    """Sample requests side by side; return uint8 frames (F, H, W, 3) for each."""
    return list(draw_clips(run, model, requests, pack_tokens))


def draw_clips(
    run: RunConfig,
    model: Network,
    requests: list[Request],
    pack_tokens: int = 0,
    told: Callable[[float, float], None] = lambda done, total: None,
) -> Iterator[np.ndarray]:
    """Yield uint8 frames (F, H, W, 3) in the order of the requests, each when it is there.

    pack_tokens: rows of a forward; 0 takes four times those of training. told: called with the
    evaluations done and all of them, weighed by their tokens.
    """
    collator = Collator(run.codec, run.text)
    held: dict[int, Tensor] = {}
    latents = draw_latents(run, model, collator, requests, pack_tokens, told)
    for number, request in enumerate(requests):
        while number not in held:
            other, latent = next(latents)
            held[other] = latent
        frames = collator.codec.decode(held.pop(number), request.height, request.width)
        yield frames.numpy()


def draw_latents(
    run: RunConfig,
    model: Network,
    collator: Collator,
    requests: list[Request],
    pack_tokens: int = 0,
    told: Callable[[float, float], None] = lambda done, total: None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (number, latent (C, f, h, w)) of each request as it arrives."""
    objective = build_objective(run.objective)
    items = [collator.blank(r.shape, r.fps, r.prompt) for r in requests]
    pairs = list(zip(items, requests, strict=True))
    orders = [order_of(objective, collator, item, request) for item, request in pairs]
    total = sum(len(item.tokens) * evaluations(request) for item, request in pairs)
    done = 0

    def count(tokens: int) -> None:
        nonlocal done
        done += tokens
        told(done, total)

    told(0, total)
    for number, rows in draw(model, orders, pack_tokens or PACKS * run.data.pack_tokens, count):
        yield number, unpatchify(rows, *items[number].size)


def evaluations(request: Request) -> int:
    """Return how often a request asks for its velocity."""
    steps = request.steps - request.route.still
    return 2 * steps - 1 if request.method is Method.heun else steps


def order_of(objective: Objective, collator: Collator, item: PackItem, request: Request) -> Order:
    """Return a request as the sampler sees it.

    The noise depends on (seed, prompt, shape) alone, whatever is drawn beside it.
    """
    name = f"{request.prompt}/{item.size}"
    noise = normal(tuple(item.tokens.shape), request.seed, "generate", name, 0)
    pack = _alone(collator, item, request.prompt)
    against = _alone(collator, item, request.negative) if request.is_guided else None
    guidance = Guidance(
        request.guidance, request.guidance_range[0], request.guidance_range[1], request.cfg_zero
    )
    return Order(objective.walk(noise, len(noise), request.route), pack, against, guidance)


def _alone(collator: Collator, item: PackItem, text: str) -> TokenPack:
    """Return a clip as a pack of its own; an empty text is no caption."""
    states = collator.caption(text) if text.strip() else torch.zeros(0, item.caption.shape[1])
    alone = PackItem(item.tokens, item.size, item.source, item.fps, states, states)
    return collator.pack([alone], [CaptionUse.dense])
