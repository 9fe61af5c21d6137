"""Caption clips with a captioner that was trained here."""

import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from data.config import DataConfig
from data.dataset.sample import SampleInfo
from data.decode.pool import DecodeError
from data.loading.batch import Sample
from data.loading.reader import SampleReader
from models.captioner.views import fit_view
from models.captioner.vocabulary import Special
from models.captioner.words import Written, write_captions
from trainer.captioner.journal import Entry, entry_of
from trainer.captioner.weights import TrainedCaptioner
from trainer.rng import generator

log = logging.getLogger("trainer")
Batch = list[tuple[SampleInfo, Sample | DecodeError]]


class LocalWriter:
    """Write captions by weights; what they are is told by :attr:`by`.

    temperature 0 takes the likeliest word each time; else words are drawn (models.captioner.words),
    by a generator named by the seed and the clip's key, so a clip's caption is always the same.
    It computes where the network lies, in its precision.
    """

    def __init__(
        self, trained: TrainedCaptioner, temperature: float, top_p: float, seed: int, batch: int
    ) -> None:
        self.trained, self.temperature, self.top_p = trained, temperature, top_p
        self.seed, self.batch = seed, batch
        weight = trained.model.head.weight
        self._device = weight.device
        drawn: list[float | str] = [temperature, top_p, seed] if temperature else []
        drawn += [str(weight.dtype)] if weight.dtype != torch.float32 else []
        text = json.dumps(["weights", trained.sha256, *drawn])
        self.by = hashlib.sha256(text.encode()).hexdigest()

    def describe(self, samples: list[Sample]) -> list[tuple[str, str, float]]:
        """Return (dense caption, short caption, confidence of the dense one) of decoded clips."""
        model, vocabulary = self.trained.model, self.trained.vocabulary
        views = []
        for sample in samples:
            assert sample.frames is not None
            views.append(fit_view(sample.frames, sample.info.fps, model.config))
        with torch.no_grad():
            memory = model.remember(views)
        made: list[list[Written]] = []
        for kind in (Special.dense, Special.short):
            draws = self._draws(samples, kind.name) if self.temperature else None
            temperature = self.temperature or 1.0
            kinds = [kind] * len(samples)
            made.append(write_captions(model, memory, kinds, draws, temperature, self.top_p))
        return [
            (vocabulary.decode(dense.words), vocabulary.decode(short.words), dense.logprob)
            for dense, short in zip(*made, strict=True)
        ]

    def _draws(self, samples: list[Sample], kind: str) -> torch.Tensor:
        most = self.trained.model.config.max_caption_tokens
        rows = [generator(self.seed, f"write {kind}", s.info.key, 0).random(most) for s in samples]
        return torch.from_numpy(np.stack(rows)).to(self._device)

    def run(
        self, data: DataConfig, split: str, infos: list[SampleInfo], add: Callable[[Entry], None]
    ) -> None:
        """Caption clips of one split, one batch a core at a time; ``add`` gets each, in order."""

        def work(batch: Batch) -> list[Entry]:
            samples = [found for _, found in batch if isinstance(found, Sample)]
            described = iter(self.describe(samples) if samples else [])
            return [
                entry_of(split, info, self.by, error=f"decoding: {found.reason}")
                if isinstance(found, DecodeError)
                else self._entry(split, info, *next(described))
                for info, found in batch
            ]

        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # one batch a core: more than two threads in one batch
        try:
            for entries in self._in_threads(work, self._read(data, split, infos)):
                for entry in entries:
                    add(entry)
        finally:
            torch.set_num_threads(threads)

    def _entry(self, split: str, info: SampleInfo, dense: str, short: str, logprob: float) -> Entry:
        if not dense:
            return entry_of(split, info, self.by, error="the captioner wrote nothing")
        said = {"caption": dense, "short_caption": short, "logprob": logprob}
        return entry_of(split, info, self.by, **said)

    def _read(self, data: DataConfig, split: str, infos: list[SampleInfo]) -> Iterator[Batch]:
        reader = SampleReader(data, split, infos)
        try:
            for start in range(0, len(infos), self.batch):
                part = infos[start : start + self.batch]
                found = reader.read([(info, 0) for info in part])
                yield list(zip(part, found, strict=True))
        finally:
            reader.close()

    def _in_threads(
        self, work: Callable[[Batch], list[Entry]], batches: Iterator[Batch]
    ) -> Iterator[list[Entry]]:
        workers = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(workers, "caption") as pool:
            waiting: deque[Future[list[Entry]]] = deque()
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
