"""Words from a captioner: the likeliest ones, or drawn from the likeliest few, with a cache."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.captioner.model import Cache, Captioner, Memory
from models.captioner.vocabulary import Special

_NEVER = [Special.pad, Special.dense, Special.short, Special.unknown]


@dataclass(frozen=True)
class Written:
    """A caption as numbers, and the mean log-probability of its words and end (nats, at most 0)."""

    words: list[int]
    logprob: float


@torch.no_grad()
def write_captions(
    model: Captioner,
    memory: Memory,
    starts: list[Special],
    draws: Float[Tensor, "B T"] | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[Written]:
    """Write a caption of every clip in ``memory``, word by word with a cache.

    Without ``draws`` the likeliest word is taken each time; with them (uniform in [0, 1), one a
    word) words are drawn from the smallest set that holds ``top_p`` of the probability (Holtzman et
    al. 2020). Log-probabilities are those of the model itself, before temperature and cutting.
    """
    if temperature <= 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"temperature={temperature}, top_p={top_p}: must be positive, and in (0, 1]. "
            "Use 1.0 and 0.9."
        )
    word = torch.tensor([[int(start)] for start in starts], device=memory.mask.device)
    cache: Cache | None = None
    chosen, logprobs = [], []
    done = torch.zeros_like(word[:, 0], dtype=torch.bool)
    for step in range(model.config.max_caption_tokens):
        logits, cache = model.read(word, memory, cache)
        scores = logits[:, -1].float().log_softmax(-1)  # (B, W)
        allowed = scores.clone()
        allowed[:, _NEVER] = -torch.inf
        if draws is None:
            pick = allowed.argmax(-1)
        else:
            pick = _draw((allowed / temperature).softmax(-1), draws[:, step], top_p)
        chosen.append(torch.where(done, int(Special.pad), pick))
        logprobs.append(scores.gather(1, pick[:, None])[:, 0].masked_fill(done, 0.0))
        done = done | (pick == Special.end)
        if bool(done.all()):
            break
        word = pick[:, None]
    table, total = torch.stack(chosen, 1).tolist(), torch.stack(logprobs, 1).sum(1).tolist()
    made = []
    for row, sum_logprob in zip(table, total, strict=True):
        written = [w for w in row if w != Special.pad]
        words = [w for w in written if w != Special.end]
        made.append(Written(words, sum_logprob / len(written)))
    return made


def _draw(chances: Float[Tensor, "B W"], draws: Float[Tensor, " B"], top_p: float) -> Tensor:
    """Draw one word a row from the likeliest ones that together hold ``top_p``."""
    ordered, order = chances.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered  # the likeliest one is always kept
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    steps = ordered.cumsum(-1)
    place = (steps <= draws[:, None] * steps[:, -1:]).sum(-1).clamp(max=steps.shape[1] - 1)
    return order.gather(1, place[:, None])[:, 0]
