"""Many runs in, one law out."""

from data.command_table import Row, run_room

COMMANDS = (
    Row("demo", "sweeps.demo", "from clips to a fitted law in half an hour"),
    Row(
        "run",
        "sweeps.run",
        "run a study: train what is missing, fit, report",
        schema="sweeps.kinds.isoflop.config:StudyConfig",
        groups=(
            "sweeps/conf",
            "launch/conf",
        ),
    ),
    Row("studies", "sweeps.studies", "the studies of captions and framing, from films to pages"),
    Row(
        "plan-study",
        "sweeps.plan.__main__",
        "list a study's runs, hours and money before it starts",
        schema="sweeps.kinds.isoflop.config:StudyConfig",
        groups=(
            "sweeps/conf",
            "launch/conf",
        ),
    ),
    Row("watch", "sweeps.watch.__main__", "watch a study while it runs"),
    Row(
        "playground",
        "sweeps.playground",
        "open a page that draws with runs, side by side",
        schema="sweeps.playground:PlaygroundConfig",
    ),
    Row("fit", "sweeps.fit.__main__", "fit a law to any table of runs"),
    Row("compare", "sweeps.compare.__main__", "say how much compute the better of two is worth"),
    Row(
        "predict",
        "sweeps.predict.__main__",
        "say what a budget buys by a study's law",
        groups=("launch/conf",),
    ),
    Row(
        "economics",
        "sweeps.predict.economics",
        "say what a target loss costs, now and later",
        schema="sweeps.predict.price:PriceConfig",
    ),
    Row(
        "report", "sweeps.report.__main__", "write the page of a study, a table or several studies"
    ),
    Row("summary", "sweeps.summary", "send a study's law and page to W&B"),
    Row("archive", "sweeps.study.archive", "keep a finished study small, or restore one"),
    Row(
        "ladder",
        "sweeps.ladder.table",
        "list model shapes beside published ones",
        schema="sweeps.ladder.table:TableConfig",
    ),
    Row("keys", "sweeps.keys", "list every key of every command, with its bounds"),
    Row("workspaces", "sweeps.workspaces", "define a study's report and workspace for W&B"),
)

if __name__ == "__main__":
    run_room(__doc__, COMMANDS)
