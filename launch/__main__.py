"""On which machines, and what it will cost."""

from data.command_table import Row, run_room

COMMANDS = (
    Row(
        "plan",
        "launch.plan",
        "plan a run: memory, time, money, disk; or search the best layout",
        schema="trainer.config:RunConfig",
        groups=(
            "trainer/conf",
            "launch/conf",
        ),
    ),
    Row(
        "submit",
        "launch.submit",
        "submit runs to a cluster, or run them here",
        schema="trainer.config:RunConfig",
        groups=(
            "trainer/conf",
            "launch/conf",
        ),
    ),
    Row(
        "array",
        "launch.array",
        "build a dataset by the tasks of an array",
        groups=("launch/conf",),
    ),
    Row("status", "launch.status", "show what runs are doing", groups=("launch/conf",)),
    Row("logs", "launch.logs", "print a run's log, and follow it"),
    Row("cancel", "launch.cancel", "cancel runs, which save first"),
    Row(
        "doctor",
        "launch.doctor",
        "check a machine or a cluster before a long run",
        groups=("launch/conf",),
    ),
)

if __name__ == "__main__":
    run_room(__doc__, COMMANDS)
