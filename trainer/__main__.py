"""Every job that runs models over data."""

from data.command_table import Row, run_room

COMMANDS = (
    Row(
        "train",
        "trainer.train",
        "train one run: a diffusion transformer, a codec or a captioner",
        schema="trainer.config:RunConfig",
        groups=("trainer/conf",),
    ),
    Row(
        "encode",
        "trainer.encode.encode",
        "encode clips into latents, once for many runs",
        schema="trainer.config:RunConfig",
        groups=("trainer/conf",),
    ),
    Row("generate", "trainer.generate.generate", "draw clips from a trained run"),
    Row(
        "caption",
        "trainer.captioner.caption",
        "write dense captions for a dataset",
        schema="trainer.captioner.job:CaptionJob",
    ),
    Row(
        "expand",
        "trainer.generate.expand",
        "expand short prompts into dense ones",
        schema="trainer.generate.expand:ExpandJob",
    ),
    Row(
        "export",
        "trainer.diffusion.export",
        "write a run's weights as safetensors, in one file or several",
    ),
    Row(
        "probe",
        "trainer.probes.likelihood.probe",
        "ask a run whether it finds broken laws less likely, by crossed pairs",
        schema="trainer.probes.likelihood.config:LikelihoodConfig",
    ),
    Row(
        "tasks",
        "trainer.probes.tasks.probe",
        "measure how well a run extends, connects, loops and edits clips",
        schema="trainer.probes.tasks.config:TasksConfig",
    ),
    Row(
        "continuations",
        "trainer.probes.samples.probe",
        "let a run go on from clips of tiny worlds, and count what it breaks",
        schema="trainer.probes.samples.config:SamplesConfig",
    ),
    Row("score", "trainer.probes.score", "measure a run's loss again, on other clips or captions"),
    Row(
        "attributes",
        "trainer.probes.attributes",
        "measure which attributes of a prompt drawn clips show",
    ),
    Row("framing", "trainer.probes.framing", "measure how much of the subject drawn clips show"),
    Row("wandb-sync", "trainer.mirror.sync", "send runs to W&B that a server missed"),
    Row("tensorboard", "trainer.mirror.tensorboard", "write runs as TensorBoard's event files"),
    Row("codec-statistics", "trainer.vae.statistics", "measure a pretrained codec's latents"),
    Row("gpu-check", "trainer.gpu_checks.check", "check on a GPU all that only a GPU can prove"),
    Row("node-check", "trainer.gpu_checks.node", "measure the nodes of a job (doctor starts it)"),
)

if __name__ == "__main__":
    run_room(__doc__, COMMANDS)
