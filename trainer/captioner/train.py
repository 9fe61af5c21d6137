"""Train a captioner on the captions of a data set.

usage: kinescale train experiment=captioner_tiny [data.root=DATASET] [key=value ...]
       kinescale train --run FOLDER        start or resume a frozen run

Keys: trainer/captioner/config.py. The same command resumes a run, a finished one is not repeated.
The weights are in RUN/weights.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from data.dataset.sample import SampleInfo
from data.loading.batch import Sample, Step
from data.loading.loader import Loader, index_digest, load_fixed
from models.captioner.model import Captioner, caption_errors
from models.captioner.views import CELL, View, fit_view
from models.captioner.vocabulary import Special, Vocabulary
from models.captioner.words import write_captions
from models.config import CaptionerConfig
from trainer.captioner.config import CaptionerRun, captioner_identity
from trainer.captioner.weights import draw_captioner, save_captioner
from trainer.rng import uniform
from trainer.small import SmallTraining, Term

WEIGHTS = "weights"
_BATCH = 16
# Below this share of the confidence on held-out clips of its own kind a caption is doubtful.
_DOUBTFUL_SHARE = 0.02

Batch = list[tuple[View, list[int], Special]]


class Lesson(nn.Module):
    """A captioner in training, with a head that guesses from the clip what its caption will say.

    The words alone teach the encoder slowly: most of a caption can be guessed from its beginning.
    The head sees the clip's summary only and says which words and pairs of words the caption holds
    (Fang et al. 2015 train such detectors first); it is not part of the weights that are written.
    """

    def __init__(self, captioner: Captioner, num_hints: int) -> None:
        super().__init__()
        self.captioner = captioner
        self.hints = nn.Linear(captioner.config.width, num_hints)
        nn.init.zeros_(self.hints.weight)
        nn.init.constant_(self.hints.bias, -2.0)  # a hint is in about one caption of eight


Phrase = tuple[int, ...]


def phrases_of(ids: list[int]) -> set[Phrase]:
    """Return the words of a caption and the pairs of neighbours."""
    return {*zip(ids, strict=True), *pairwise(ids)}


def choose_hints(captions: list[list[int]], most: int) -> dict[Phrase, int]:
    """Number the commonest phrases that neither nearly all captions hold nor nearly none."""
    counts = Counter(phrase for ids in captions for phrase in phrases_of(ids))
    low, high = 0.005 * len(captions), 0.7 * len(captions)
    found = [phrase for phrase, count in counts.items() if low <= count <= high]
    found.sort(key=lambda phrase: (-counts[phrase], phrase))
    return {phrase: number for number, phrase in enumerate(found[:most])}


class CaptionTask:
    """What the small loop needs to know of captioning: batches, their loss, and the end."""

    def __init__(self, run: CaptionerRun, folder: Path, infos: Sequence[SampleInfo]) -> None:
        self.run, self.folder, self.infos = run, folder, infos
        self.vocabulary = build_vocabulary(run, self.infos)
        self.hints = choose_hints([self.vocabulary.encode(i.caption) for i in infos], run.hints)
        captioner = draw_captioner(run.captioner, self.vocabulary, run.seed)
        self.model = Lesson(captioner, len(self.hints))

    def prepare(self, step: Step) -> Batch:
        """Return the clips of a step, each with the caption that this visit trains."""
        found = [self._pair(sample) for pack in step.packs for sample in pack.samples]
        return [pair for pair in found if pair is not None]

    def _pair(self, sample: Sample) -> tuple[View, list[int], Special] | None:
        info = sample.info
        draw = uniform(self.run.seed, "caption", info.key, sample.visit)
        short = bool(info.short_caption) and draw < self.run.short_share
        text = info.short_caption if short or not info.caption else info.caption
        if not text:
            return None  # nobody wrote anything: nothing to learn from
        kind = Special.short if text == info.short_caption else Special.dense
        view = view_of(sample, self.run.captioner)
        if self.run.mirror and uniform(self.run.seed, "mirror", info.key, sample.visit) < 0.5:
            view, text = View(view.pixels.flip(2), view.fps), mirror_words(text)
        return view, self.vocabulary.encode(text), kind

    def loss(self, module: nn.Module, batch: Batch) -> list[Term]:
        """Return the cross-entropy a word."""
        assert isinstance(module, Lesson)
        if not batch:
            zero = torch.zeros(())
            return [Term("nats_a_word", zero, 0.0), Term("hints", zero, 0.0, self.run.hint_weight)]
        views, captions, kinds = (list(part) for part in zip(*batch, strict=True))
        memory = module.captioner.remember(views)
        sums, counts = caption_errors(module.captioner, memory, captions, kinds)
        told = torch.zeros(len(captions), len(self.hints))
        for row, ids in enumerate(captions):
            told[row, [self.hints[g] for g in phrases_of(ids) if g in self.hints]] = 1.0
        guessed = binary_cross_entropy_with_logits(
            module.hints(memory.summary), told, reduction="sum"
        )
        return [
            Term("nats_a_word", sums.sum(), float(counts.sum())),
            Term("hints", guessed, float(told.numel()), self.run.hint_weight),
        ]

    def finish(self, module: nn.Module) -> dict[str, Any]:
        """Measure the held-out clips, calibrate the confidence, write the weights."""
        assert isinstance(module, Lesson)
        run, captioner = self.run, module.captioner.eval()
        held_out = load_fixed(run.data, run.validation_split, run.validation_samples)
        measured = measure(captioner, self.vocabulary, held_out)
        about = describe_run(run, self.infos) | {"heldout_clips": len(held_out), **measured}
        digest = save_captioner(self.folder / WEIGHTS, captioner, self.vocabulary, about)
        loss = measured["heldout_nats_a_word"]
        return {"loss": loss, **measured, "weights_sha256": digest}


def mirror_words(text: str) -> str:
    """Swap left and right in a caption."""
    swapped = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda match: swapped[match[0]], text)


def view_of(sample: Sample, config: CaptionerConfig) -> View:
    """Return a decoded clip as the captioner reads it."""
    assert sample.frames is not None
    return fit_view(sample.frames, sample.info.fps, config)


def describe_run(run: CaptionerRun, infos: Sequence[SampleInfo]) -> dict[str, Any]:
    """Return what the weights' file tells of their making."""
    return {
        "settings": captioner_identity(run),
        "data_digest": index_digest(infos),
        "clips": len(infos),
        "steps": run.steps,
    }


def build_vocabulary(run: CaptionerRun, infos: Sequence[SampleInfo]) -> Vocabulary:
    """Collect the words of the training captions, dense and short."""
    texts = [text for i in infos for text in (i.caption, i.short_caption) if text]
    texts += [mirror_words(text) for text in texts] if run.mirror else []
    if not texts:
        raise ValueError(
            f"data.root={run.data.root}: its {run.data.train_split} split has no captions. "
            "Choose a data set with captions."
        )
    return Vocabulary.of_captions(texts, run.words.most, run.words.min_count)


@torch.no_grad()
def measure(model: Captioner, vocabulary: Vocabulary, samples: list[Sample]) -> dict[str, Any]:
    """Return the loss on held-out dense captions and the confidence of greedy ones.

    ``doubtful_logprob`` is the confidence under which only 2 % of these captions lie: captions of
    other clips under it are likely of a kind that the captioner was not trained on.
    """
    total = words = 0.0
    logprobs: list[float] = []
    for start in range(0, len(samples), _BATCH):
        batch = [s for s in samples[start : start + _BATCH] if s.info.caption]
        if not batch:
            continue
        views = [view_of(sample, model.config) for sample in batch]
        ids = [vocabulary.encode(s.info.caption) for s in batch]
        kinds = [Special.dense] * len(batch)
        memory = model.remember(views)
        sums, counts = caption_errors(model, memory, ids, kinds)
        total, words = total + float(sums.sum()), words + float(counts.sum())
        logprobs += [w.logprob for w in write_captions(model, memory, kinds)]
    if not logprobs:
        raise ValueError("validation_split: has no captions to measure. Choose another split.")
    low = torch.tensor(logprobs).quantile(_DOUBTFUL_SHARE).item()
    return {
        "heldout_nats_a_word": total / words,
        "caption_logprob": sum(logprobs) / len(logprobs),
        "doubtful_logprob": low,
    }


def train_captioner(
    run: CaptionerRun, folder: Path, should_stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Train or resume a frozen run in this process; return its result, or None if stopped."""
    loader = Loader(run.data, run.data.train_split, CELL, run.seed, 0, 1)
    try:
        task = CaptionTask(run, folder, loader.infos)
        return SmallTraining(
            task.model,
            loader,
            task.prepare,
            task.loss,
            run.optim,
            run.steps,
            folder,
            finish=task.finish,
            checkpoint=run.checkpoint,
            log_every=run.log_every,
        ).run(should_stop)
    finally:
        loader.close()


def train_here(run: CaptionerRun, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Train a frozen run in this process and say where its weights are; False when stopped."""
    result = train_captioner(run, folder, should_stop)
    if result is None:
        return False
    print(f"weights: {folder / WEIGHTS}, sha256 {result['weights_sha256'][:12]}")
    return True
