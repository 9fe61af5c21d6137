"""Carry out a study of arms: train, measure again, draw, probe, compare.

Runs that failed are shown on the page, and the others are compared without them.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from data.files import write_json
from launch.local.process import Job
from sweeps.kinds.arms.config import ArmsConfig, Probe
from sweeps.kinds.arms.measures import held_out_means, probe_values, result_values, score_values
from sweeps.kinds.arms.plan import ArmsPlan, Drawn
from sweeps.kinds.arms.prompts import shape_of
from sweeps.kinds.arms.summary import summarise
from sweeps.kinds.arms.table import SUMMARY_COLUMNS, Value, write_csv, write_values
from sweeps.study.results import read_result
from sweeps.study.runner import StudyRunner, Work
from sweeps.study.spec import Spec
from sweeps.study.y_axis import on_axis

RUN_COLUMNS = (
    "name", "arm", "seed", "status", "reason", "params", "flops", "tokens", "steps", "samples",
    "loss", "loss_noise", "lr", "batch_tokens", "width", "depth", "epochs", "padding_share",
    "seconds",
)  # fmt: skip


class ArmsRunner(StudyRunner):
    """A study of arms."""

    study: ArmsConfig
    plan: ArmsPlan

    def __init__(self, study: ArmsConfig, argv: Sequence[str]) -> None:
        super().__init__(study, ArmsPlan(study), argv)
        self._drawn: list[Drawn] = []
        self._probe: dict[str, Any] = {}

    def phases(self) -> Iterator[Work]:
        """Yield the training, then what measures its runs, then the probe of the clips drawn."""
        self.plan.check_data()
        yield Work("train", self.plan.specs)
        yield Work("measure and draw", jobs=self._measuring())
        self._drawn = [clip for clip in self._drawn if (self.study.folder / clip.file).exists()]
        if self._drawn and self.study.draws.probe is not Probe.none:
            run = self.finished()[0].folder
            job = self.plan.probing(run, self._drawn, self.plan.prompts())
            yield Work("probe", jobs=[job])
            if job.done_marker.exists():
                self._probe = json.loads(job.done_marker.read_text(encoding="utf-8"))
        self._write()

    def describe(self) -> dict[str, Any]:
        """Return the arms and what the probe found."""
        study, probe = self.study, self._probe
        held_out = held_out_means(self._drawn, study.folder, probe) if probe else {}
        return {
            "cost": study.cost,
            "expected": study.expected,
            "arms": dict(study.arms),
            "reference": study.reference,
            "level": study.level,
            "flops": study.flops,
            "probe": probe.get("quality", []),
            "probe_notes": probe.get("notes", []),
            "held_out": [
                {"measure": name, "group": group, "mean": mean}
                for (name, group), mean in held_out.items()
            ],
        }

    def _measuring(self) -> list[Job]:
        """Return the jobs that score every finished run and draw from it; note the clips asked."""
        finished = self.finished()
        if not finished:
            raise ValueError(
                f"study={self.study.name}: no run finished. See the log.txt of its runs."
            )
        jobs = [self.plan.scoring(run.spec, run.folder) for run in finished]
        prompts = self.plan.prompts()
        if prompts:
            drawings = [self.plan.drawing(run.spec, run.folder, prompts) for run in finished]
            drawings.append(self.plan.references(finished[0].folder, prompts))
            jobs += [job for job, _ in drawings]
            self._drawn = [clip for _, clips in drawings for clip in clips]
        return jobs

    def _values(self) -> list[Value]:
        """Return all that was measured."""
        values: list[Value] = []
        # Arms that train on other data validate on it too: such losses cannot be compared.
        comparable = len({self.plan.compose(spec).data.root for spec in self.plan.specs}) == 1
        for run in self.finished():
            seed = self.plan.seeds[run.spec.name]
            own = on_axis(run.result, self.study.y_axis.axis)
            values += result_values(run.spec, seed, own) if comparable else []
            scores = self.study.folder / "losses" / f"{run.folder.name}.json"
            values += score_values(run.spec, seed, scores) if scores.exists() else []
        if not self._probe:
            return values
        return values + probe_values(self._drawn, self.study.folder, self._probe)

    def _write(self) -> None:
        """Write values.csv, summary.csv, runs.csv and samples.json."""
        study, folder, values = self.study, self.study.folder, self._values()
        write_values(folder / "values.csv", values)
        summary = summarise(values, list(study.arms), study.reference, study.level)
        write_csv(folder / "summary.csv", SUMMARY_COLUMNS, summary)
        rows = [self._row(spec) for spec in self.plan.specs]
        write_csv(folder / "runs.csv", RUN_COLUMNS, rows)
        write_json(folder / "samples.json", self._shown())

    def _row(self, spec: Spec) -> dict[str, Any]:
        result = read_result(self.folders[spec.name]) or {"status": "missing"}
        result = on_axis(result, self.study.y_axis.axis)
        row = {key: result.get(key) for key in RUN_COLUMNS}
        reasons = [f["reason"] for f in self.failures if f["job"] == spec.name]
        reason = result.get("reason") or (reasons[0] if reasons else None)
        row |= {"name": self.folders[spec.name].name, "arm": spec.arm, "reason": reason}
        row["seed"] = self.plan.seeds[spec.name]
        row["epochs"] = result.get("accounting", {}).get("epochs")
        return row

    def _shown(self) -> dict[str, Any]:
        """Return the clips of the first seed and noise that the page shows side by side."""
        study = self.study
        files = {
            (clip.arm, clip.captions, clip.prompt): clip.file
            for clip in reversed(self._drawn)
            if clip.noise == 0 and (not clip.arm or clip.seed == study.seeds[0])
        }
        rows: list[dict[str, Any]] = []
        for number, prompt in enumerate(self.plan.prompts()[: study.draws.shown]):
            for use in study.draws.captions:
                text = prompt.caption if use.value == "dense" else prompt.short_caption
                shape = f"{prompt.num_frames} × {prompt.height} × {prompt.width}"
                row: dict[str, Any] = {"text": text, "captions": use.value}
                row["shape"] = f"{shape}, {shape_of(prompt)}"
                row["files"] = {arm: files.get((arm, use.value, number)) for arm in study.arms}
                row["held_out"] = files.get(("", "", number))
                rows.append(row)
        return {"seed": study.seeds[0], "rows": rows}
