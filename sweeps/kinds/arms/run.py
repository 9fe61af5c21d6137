"""Carry out a study of arms: train, measure again, draw, probe, compare, write the page.

``python -m sweeps.run study=NAME`` comes here where the study's schema is ``arms``. Every phase
skips what is done, so the same command continues; a run that fails is shown on the page, and the
others are compared without it.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from data.files import write_json
from launch.local.process import Job
from launch.local.run import Outcome, Status
from sweeps.kinds.arms.config import ArmsConfig, Probe
from sweeps.kinds.arms.measures import held_out_means, probe_values, result_values, score_values
from sweeps.kinds.arms.plan import ArmsPlan, Drawn
from sweeps.kinds.arms.prompts import shape_of
from sweeps.kinds.arms.summary import summarise
from sweeps.kinds.arms.table import SUMMARY_COLUMNS, Value, write_csv, write_values
from sweeps.report.pages.arms import build_arms_report
from sweeps.study.phases import (
    INTERRUPTED,
    Interrupted,
    describe_environment,
    launch_phase,
)
from sweeps.study.results import read_result
from sweeps.study.spec import Spec, save_plan

RUN_COLUMNS = (
    "name", "arm", "seed", "status", "reason", "params", "flops", "tokens", "steps", "samples",
    "loss", "loss_noise", "lr", "batch_tokens", "width", "depth", "epochs", "padding_share",
    "seconds",
)  # fmt: skip


class ArmsRunner:
    """A study of arms through its phases."""

    def __init__(self, study: ArmsConfig, argv: Sequence[str]) -> None:
        self.study, self.argv = study, list(argv)
        self.plan = ArmsPlan(study)
        self.folders: dict[str, Path] = {}
        self.failures: list[dict[str, str]] = []

    def run(self) -> Path:
        """Run everything; return the page's path."""
        self.plan.check_data()
        from sweeps.study.freeze import freeze_study

        freeze_study(self.study)
        started = self._started()
        jobs = self.plan.training()
        self.folders = {job.name: job.run_dir for job in jobs}
        save_plan(self.study.folder, self.plan.specs, {k: v.name for k, v in self.folders.items()})
        self._launch("train", jobs)
        drawn, probe = self._measure()
        values = self._values(drawn, probe)
        self._write(values, drawn, probe, started)
        return build_arms_report(self.study.folder)

    def _started(self) -> str:
        path = self.study.folder / "started.txt"
        if not path.exists():
            path.write_text(datetime.now(UTC).isoformat(timespec="seconds"))
        return path.read_text()

    def _launch(self, phase: str, jobs: list[Job]) -> None:
        outcomes = launch_phase(f"{self.study.name}: {phase}", jobs, self.study.cluster)
        self.failures += [_failure(phase, o) for o in outcomes if o.status is Status.failed]

    def _finished(self) -> list[tuple[Spec, Path, dict[str, Any]]]:
        found = []
        for spec in self.plan.specs:
            result = read_result(self.folders[spec.name])
            if result is not None and result["status"] == "finished":
                found.append((spec, self.folders[spec.name], result))
        return found

    def _measure(self) -> tuple[list[Drawn], dict[str, Any]]:
        """Score, draw and probe; return the clips that are there and what the probe found."""
        study, finished = self.study, self._finished()
        if not finished:
            raise ValueError(f"study={study.name}: no run finished. See the log.txt of its runs.")
        prompts = self.plan.prompts()
        jobs = [self.plan.scoring(spec, folder) for spec, folder, _ in finished]
        drawn: list[Drawn] = []
        if prompts:
            drawings = [self.plan.drawing(spec, folder, prompts) for spec, folder, _ in finished]
            drawings.append(self.plan.references(finished[0][1], prompts))
            jobs += [job for job, _ in drawings]
            drawn = [clip for _, clips in drawings for clip in clips]
        self._launch("measure and draw", jobs)
        drawn = [clip for clip in drawn if (study.folder / clip.file).exists()]
        if not drawn or study.draws.probe is Probe.none:
            return drawn, {}
        job = self.plan.probing(finished[0][1], drawn, prompts)
        self._launch("probe", [job])
        return drawn, json.loads(job.done_marker.read_text()) if job.done_marker.exists() else {}

    def _values(self, drawn: list[Drawn], probe: dict[str, Any]) -> list[Value]:
        values: list[Value] = []
        # Arms that train on other data validate on it too: such losses cannot be compared.
        comparable = len({self.plan.compose(spec).data.root for spec in self.plan.specs}) == 1
        for spec, folder, result in self._finished():
            seed = self.plan.seeds[spec.name]
            values += result_values(spec, seed, result) if comparable else []
            scores = self.study.folder / "losses" / f"{folder.name}.json"
            values += score_values(spec, seed, scores) if scores.exists() else []
        return values + (probe_values(drawn, self.study.folder, probe) if probe else [])

    def _write(
        self, values: list[Value], drawn: list[Drawn], probe: dict[str, Any], started: str
    ) -> None:
        """Write values.csv, summary.csv, runs.csv, samples/shown.json and study.json."""
        study, folder = self.study, self.study.folder
        write_values(folder / "values.csv", values)
        summary = summarise(values, list(study.arms), study.reference, study.level)
        write_csv(folder / "summary.csv", SUMMARY_COLUMNS, summary)
        rows = [self._row(spec) for spec in self.plan.specs]
        write_csv(folder / "runs.csv", RUN_COLUMNS, rows)
        write_json(folder / "samples.json", self._shown(drawn))
        held_out = held_out_means(drawn, folder, probe) if probe else {}
        config = OmegaConf.to_container(OmegaConf.structured(study), enum_to_str=True)
        about = {
            "kind": "arms",
            "name": study.name,
            "question": study.question,
            "cost": study.cost,
            "expected": study.expected,
            "command": "python -m sweeps.run " + " ".join(self.argv),
            "config": config,
            "arms": dict(study.arms),
            "reference": study.reference,
            "level": study.level,
            "flops": study.flops,
            "started": started,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": sum(float(row["seconds"] or 0) for row in rows),
            "env": describe_environment(self.folders.values()),
            "probe": probe.get("quality", []),
            "probe_notes": probe.get("notes", []),
            "held_out": [
                {"measure": name, "group": group, "mean": mean}
                for (name, group), mean in held_out.items()
            ],
            "failures": self.failures,
        }
        write_json(folder / "study.json", about)

    def _row(self, spec: Spec) -> dict[str, Any]:
        result = read_result(self.folders[spec.name]) or {"status": "missing"}
        row = {key: result.get(key) for key in RUN_COLUMNS}
        reasons = [f["reason"] for f in self.failures if f["job"] == spec.name]
        reason = result.get("reason") or (reasons[0] if reasons else None)
        row |= {"name": self.folders[spec.name].name, "arm": spec.arm, "reason": reason}
        row["seed"] = self.plan.seeds[spec.name]
        row["epochs"] = result.get("accounting", {}).get("epochs")
        return row

    def _shown(self, drawn: list[Drawn]) -> dict[str, Any]:
        """Return the clips of the first seed and noise that the page shows side by side."""
        study = self.study
        files = {
            (clip.arm, clip.captions, clip.prompt): clip.file
            for clip in reversed(drawn)
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


def _failure(phase: str, outcome: Outcome) -> dict[str, str]:
    tail = outcome.log_tail.strip().splitlines()
    return {
        "phase": phase,
        "job": outcome.name,
        "reason": outcome.reason,
        "last_line": tail[-1][:300] if tail else "",
    }


def run_arms(study: ArmsConfig, argv: Sequence[str]) -> int:
    """Run a study of arms and say where its page is; return the exit status."""
    try:
        runner = ArmsRunner(study, argv)
        page = runner.run()
    except Interrupted:
        print("interrupted: runs saved what they had; the same command continues.")
        return INTERRUPTED
    for name in ("runs.csv", "values.csv", "summary.csv"):
        print(f"{name + ':':13s}{study.folder / name}")
    print(f"page:        {page}")
    return 1 if runner.failures else 0
