"""What runs write down stays readable, and says each thing once, after they were cut short."""

from pathlib import Path

from trainer.run.metrics import MetricsFile, append_lines, read_metrics


def test_a_line_that_was_cut_short_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for line in ('{"step": 1}\n{"st', '{"step": 2}\n', '{"step": 3}\n'):
        with append_lines(path) as file:
            file.write(line)
    assert path.read_text() == '{"step": 1}\n{"st\n{"step": 2}\n{"step": 3}\n'


def test_the_validation_at_the_end_is_cut_where_it_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for record in ({"loss": 1.0}, {"train_loss": 1.0}, {"loss": 2.0, "loss/val": 2.0}):
        file.write({"step": 3} | record)
    file.close()
    MetricsFile(path, 3).close()
    assert [r.get("loss") for r in read_metrics(path)] == [1.0, None]
