"""Clips in, packs out."""

from data.command_table import Row, run_room

COMMANDS = (
    Row(
        "ingest",
        "data.ingest.ingest",
        "turn films and pictures into a dataset",
        schema="data.config:IngestConfig",
    ),
    Row(
        "demo-data",
        "data.demo.demo",
        "make the demo's dataset of real and rendered clips",
        schema="data.config:DemoConfig",
    ),
    Row(
        "worlds",
        "data.worlds.__main__",
        "film simulated worlds with their truth",
        schema="data.config:WorldsConfig",
    ),
    Row(
        "crop",
        "data.derive.crop",
        "copy a dataset with its clips cropped to squares",
        schema="data.derive.crop:CropConfig",
    ),
    Row(
        "reshape",
        "data.derive.reshape",
        "copy a dataset with smaller or shorter clips",
        schema="data.derive.reshape:ReshapeConfig",
    ),
    Row(
        "index",
        "data.derive.index",
        "index shards that other tools wrote",
        schema="data.derive.index:IndexConfig",
    ),
    Row("sheet", "data.show.sheet", "show a dataset on one page"),
    Row("decode-check", "data.decode.check", "judge the video decoders on files"),
)

if __name__ == "__main__":
    run_room(__doc__, COMMANDS)
