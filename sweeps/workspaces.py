"""A study's report and workspace for W&B, as definitions that are built offline.

usage: kinescale workspaces STUDY_DIR [--project NAME] [--publish ENTITY]

examples:
  kinescale workspaces runs/demo                          # write runs/demo/wandb_report.json
  wandb sync runs/demo/wandb/offline-run-* runs/demo/runs/*/wandb/offline-run-*
  kinescale workspaces runs/demo --publish MY_TEAM        # needs `wandb login`

The definition shows the study's runs (W&B's group of its name) and its summary run. Publishing
makes a new report under ENTITY; the runs must have been synced before. Needs wandb-workspaces:
pip install "kinescale[workspaces]".
"""

import importlib.util
import json
import re
import warnings
from pathlib import Path
from typing import Any

from data.files import write_json
from data.shell import OptionParser, command
from sweeps.report.checklist.checklist import checklist, summary
from sweeps.report.inputs.isoflop import Inputs, read_inputs
from sweeps.report.wording import finding, warnings_of

_TITLE = 128  # characters that W&B allows
_HOW = "kinescale workspaces STUDY_DIR --publish ENTITY, after wandb login and wandb sync"


def available() -> bool:
    """Say whether wandb-workspaces is installed."""
    return importlib.util.find_spec("wandb_workspaces") is not None


def write_definition(inputs: Inputs, project: str) -> Path | None:
    """Write ``wandb_report.json`` into the study's folder; None without wandb-workspaces."""
    if not available():
        return None
    path = inputs.study_dir / "wandb_report.json"
    report, workspace = build_report_view(inputs, project), build_workspace(inputs, project)
    views = {"report": report._to_model(), "workspace": workspace._to_model()}
    found = {key: json.loads(view.model_dump_json(by_alias=True)) for key, view in views.items()}
    write_json(path, {"how_to_publish": _HOW} | found)
    return path


def build_report_view(inputs: Inputs, project: str, entity: str = "") -> Any:
    """Return a ``wandb_workspaces`` report: finding, doubts, checklist, plots over the runs."""
    wr = _reports()
    name = _name(inputs)
    answers = checklist(inputs)
    blocks = [
        wr.P(str(inputs.study.get("question") or "")),
        wr.H2("The law"),
        wr.P(finding(inputs)),
        wr.H2("Read this before you trust the curve"),
        wr.UnorderedList(items=warnings_of(inputs) or ["The fit gives no warning."]),
        wr.H2("Runs"),
        wr.PanelGrid(runsets=[_runset(wr, inputs, entity, project)], panels=_panels(wr)),
        wr.H2(f"Checklist: {summary(answers)}"),
        wr.UnorderedList(items=[f"{a.question} ({a.status.value}): {a.text}" for a in answers]),
        wr.P("Figures, tables and the whole page are in the summary run (tag: law)."),
    ]
    return wr.Report(
        entity=entity, project=project, title=f"{name}: scaling law"[:_TITLE], blocks=blocks,
        description=str(inputs.study.get("question") or ""),
    )  # fmt: skip


def build_workspace(inputs: Inputs, project: str, entity: str = "") -> Any:
    """Return a ``wandb_workspaces`` workspace with the same plots."""
    wr = _reports()
    import wandb_workspaces.workspaces as ws

    # Its names may hold no emoji, and a study may be called anything.
    name = re.sub(r"[^\w .:-]", "", _name(inputs), flags=re.ASCII)
    section = ws.Section(name="Scaling law", panels=_panels(wr), is_open=True)
    return ws.Workspace(
        entity=entity, project=project, name=f"{name}: scaling law", sections=[section]
    )


def _reports() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it declares its models in pydantic's old style
        import wandb_workspaces.reports.v2 as wr
    return wr


def _name(inputs: Inputs) -> str:
    return str(inputs.study.get("name") or inputs.study_dir.resolve().name)


def _runset(wr: Any, inputs: Inputs, entity: str, project: str) -> Any:
    """Return the runs of the study's group."""
    group = _name(inputs)
    # The filter is a small language of its own: a name that could end its string is left out.
    known = re.fullmatch(r"[\w.+-]+", group, flags=re.ASCII)
    filters = f"Metric('group') == '{group}'" if known else ""
    return wr.Runset(entity=entity, project=project, name="Runs of the study", filters=filters)


def _panels(wr: Any) -> list[Any]:
    """Return the plots that the law is made of, and those that show a sick run."""
    flops, params, loss = (wr.SummaryMetric(key) for key in ("flops", "params", "loss"))
    logs = {"log_x": True, "log_y": True}
    places = [wr.Layout(x=12 * (i % 2), y=8 * (i // 2), w=12, h=8) for i in range(4)]
    return [
        wr.ScatterPlot(title="Loss against compute", x=flops, y=loss, layout=places[0], **logs),
        wr.ScatterPlot(title="IsoFLOP: loss against parameters", x=params, y=loss, z=flops,
                       layout=places[1], **logs),
        wr.LinePlot(title="Validation loss while training", x="flops", y=["loss"],
                    layout=places[2], **logs),
        wr.LinePlot(title="Training loss", x="flops", y=["train_loss"], layout=places[3], **logs),
    ]  # fmt: skip


def publish(inputs: Inputs, project: str, entity: str) -> str:
    """Save the report under an entity; return its address. Raises ValueError where W&B refuses."""
    try:
        report = build_report_view(inputs, project, entity).save()
    except Exception as error:  # the library raises plain Exceptions
        raise ValueError(
            f"publish={entity}: {error}. Log in with wandb login and name a team or user of yours."
        ) from error
    return str(report.url)


@command(__doc__)
def main(argv: list[str]) -> int:
    """Write a study's definition, and publish it when asked to."""
    parser = OptionParser()
    parser.add_argument("study_dir", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--project", default="kinescale")
    parser.add_argument("--publish", metavar="ENTITY")
    arguments = parser.parse_args(argv)
    inputs = read_inputs(arguments.study_dir)
    if not available():
        raise ValueError(
            "wandb-workspaces: must be installed to build a report. "
            'Use pip install "kinescale[workspaces]".'
        )
    print(write_definition(inputs, arguments.project))
    if arguments.publish:
        print(publish(inputs, arguments.project, arguments.publish))
    return 0


if __name__ == "__main__":
    main.run()
