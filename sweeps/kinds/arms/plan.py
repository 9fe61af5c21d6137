"""A study of arms as jobs: every arm with every seed at the same FLOPs, then what measures them."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset.shards import read_index
from launch.local.process import Job
from sweeps.kinds.arms.config import ArmsConfig, Probe
from sweeps.kinds.arms.prompts import Prompt, choose_prompts
from sweeps.study.spec import Phase, Spec, overrides_of, refuse_uncounted, train_job
from trainer.config import CaptionUse, RunConfig, compose_run

PROBES = {Probe.attributes: "trainer.probes.attributes", Probe.framing: "trainer.probes.framing"}


@dataclass(frozen=True)
class Drawn:
    """A clip on disk: drawn from a run, or the held-out clip itself where ``arm`` is empty.

    file: relative to the study's folder. prompt: number of the prompt. noise: which draw.
    """

    file: str
    arm: str
    seed: int
    captions: str
    prompt: int
    noise: int


class ArmsPlan:
    """Turn a study of arms into specs, and specs and finished runs into jobs."""

    def __init__(self, study: ArmsConfig) -> None:
        self.study = study
        refuse_uncounted(study)
        self.specs = [
            Spec(
                f"{arm}-s{seed}",
                Phase.arm,
                study.flops,
                [*overrides, f"horizon.flops={study.flops:.6g}", f"seed={seed}"],
                arm,
            )
            for seed in study.seeds
            for arm, overrides in study.arms.items()
        ]
        self.seeds = {f"{arm}-s{seed}": seed for seed in study.seeds for arm in study.arms}

    def compose(self, spec: Spec) -> RunConfig:
        """Compose a spec's run."""
        return compose_run(overrides_of(self.study, spec))

    def prompts(self) -> list[Prompt]:
        """Choose the held-out clips whose captions are the prompts."""
        draws = self.study.draws
        if not draws.prompts:
            return []
        root = draws.root or self.compose(self.specs[0]).data.root
        return choose_prompts(root, draws.split, draws.prompts)

    def check_data(self) -> None:
        """Raise ValueError where a data set of the study is missing, before anything is trained."""
        for spec in self.specs[: len(self.study.arms)]:
            run = self.compose(spec)
            for split in (run.data.train_split, *run.validation.splits):
                read_index(run.data.root, split)
        if self.study.losses.root:
            read_index(self.study.losses.root, self.study.losses.split)
        self.prompts()

    def job(self, spec: Spec) -> Job:
        """Freeze a spec's run and return the job that trains it."""
        return train_job(self.compose(spec), spec.name, spec.budget)

    def scoring(self, spec: Spec, run: Path) -> Job:
        """Return the job that measures a run's held-out loss again."""
        losses, out = self.study.losses, self.study.folder / "losses" / f"{run.name}.json"
        captions = ",".join(use.value for use in losses.captions)
        settings = [f"split={losses.split}", f"samples={losses.samples}", f"captions=[{captions}]"]
        settings += [f"root={losses.root}"] if losses.root else []
        argv = [sys.executable, "-m", "trainer.probes.score", f"run={run}", f"out={out}", *settings]
        _forget_if_changed(out.with_suffix(".asked.json"), settings, [out])
        return Job(f"loss-{spec.name}", out.parent / run.name, argv, 1, spec.budget / 50, out)

    def drawing(self, spec: Spec, run: Path, prompts: list[Prompt]) -> tuple[Job, list[Drawn]]:
        """Return the job that draws every prompt from a run, and the clips that it makes."""
        draws, folder = self.study.draws, Path("samples") / spec.name
        made, requests = [], []
        for use in draws.captions:
            for number, prompt in enumerate(prompts):
                for noise in range(draws.noises):
                    file = folder / f"{use.value}-{number:02d}-{noise}.mp4"
                    made.append(
                        Drawn(str(file), spec.arm, self.seeds[spec.name], use.value, number, noise)
                    )
                    requests.append(self._request(prompt, use, noise, file))
        return self._draw_job(spec.name, run, requests), made

    def references(self, run: Path, prompts: list[Prompt]) -> tuple[Job, list[Drawn]]:
        """Return the job that writes the held-out clips through the codec, and those clips."""
        draws, made, requests = self.study.draws, [], []
        root = draws.root or self.compose(self.specs[0]).data.root
        for number, prompt in enumerate(prompts):
            file = Path("samples") / "held-out" / f"{number:02d}.mp4"
            made.append(Drawn(str(file), "", 0, "", number, 0))
            stored = {"root": root, "split": draws.split, "key": prompt.key}
            out = str(self.study.folder / file)
            requests.append({"out": out, "fps": prompt.fps, "reference": stored})
        return self._draw_job("held-out", run, requests), made

    def _request(self, prompt: Prompt, use: CaptionUse, noise: int, file: Path) -> dict[str, Any]:
        return {
            "out": str(self.study.folder / file),
            "prompt": prompt.caption if use is CaptionUse.dense else prompt.short_caption,
            "num_frames": prompt.num_frames,
            "height": prompt.height,
            "width": prompt.width,
            "fps": prompt.fps,
            "seed": noise,
            "steps": self.study.draws.steps,
            "guidance": self.study.draws.guidance,
        }

    def _draw_job(self, name: str, run: Path, requests: list[dict[str, Any]]) -> Job:
        """Write a request file; the last clip it asks for marks the job as done."""
        folder = self.study.folder / "samples" / name
        outs = [Path(request["out"]) for request in requests]
        _forget_if_changed(folder / "asked.json", [run.name, requests], outs)
        file = folder / "requests.json"
        file.write_text(json.dumps(requests, indent=1))
        argv = [sys.executable, "-m", "trainer.generate", f"run={run}", f"requests={file}"]
        return Job(f"draw-{name}", folder, argv, 1, self.study.flops / 50, outs[-1])

    def probing(self, run: Path, drawn: list[Drawn], prompts: list[Prompt]) -> Job:
        """Return the job that measures all drawn clips; ``run`` says which codec they met."""
        study, draws = self.study, self.study.draws
        folder = study.folder / "probe"
        asked = folder / "clips.json"
        clips = [
            {"file": str(study.folder / clip.file), "key": prompts[clip.prompt].key}
            for clip in drawn
        ]
        settings = [f"run={run}", f"root={draws.root}", f"split={draws.split}"]
        settings += [f"train_root={draws.train_root or draws.root}"]
        settings += [f"train_split={draws.train_split}"]
        settings += [f"train_clips={draws.train_clips}", f"check_clips={draws.check_clips}"]
        out = folder / "probe.json"
        stamps = [(study.folder / clip.file).stat().st_mtime_ns for clip in drawn]
        _forget_if_changed(
            folder / "asked.json", [draws.probe.value, settings, clips, stamps], [out]
        )
        asked.write_text(json.dumps(clips, indent=1))
        argv = [sys.executable, "-m", PROBES[draws.probe], f"clips={asked}", f"out={out}"]
        return Job("probe", folder, [*argv, *settings], 1, study.flops / 20, out)


def _forget_if_changed(stamp: Path, asked: Any, outs: list[Path]) -> None:
    """Remove outputs that answer another request than ``asked``."""
    text = json.dumps(asked, indent=1)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    if not stamp.exists() or stamp.read_text() != text:
        for out in outs:
            out.unlink(missing_ok=True)
        stamp.write_text(text)
