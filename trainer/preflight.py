"""Look at a run before it starts: data, splits, tokens, disk, keys, and one real step.

:func:`find_missing` is cheap: every start does it. :func:`look` reads the data set's index, too,
and :func:`try_step` trains one step in a throwaway folder, as ``check=true`` asks.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from netrc import NetrcParseError, netrc
from pathlib import Path

import psutil

from data.checks import Check, Verdict, judge, of_error, refuse_bad, shown_bytes
from data.config import DataConfig
from data.dataset.remote import is_url, open_root
from data.dataset.shards import INDEX_NAME, read_index
from data.dataset.table import lengths_of, tally
from data.loading.mixture import read_mixture
from data.loading.pieces import cut_long, num_pieces
from data.notices import doing
from data.secrets import masked, refuse_secrets, texts_in
from data.words import counted, shown_times
from models.captioner.count import count_captioner_params
from models.captioner.vocabulary import most_pieces
from models.codec.count import count_perceptual_params, count_vae_params
from models.count import count_params
from trainer.captioner.config import CaptionerRun
from trainer.config import STATE_BYTES, BranchConfig, HorizonConfig, RunConfig
from trainer.diffusion.encoding import check_encoding
from trainer.diffusion.horizon import plan_horizon
from trainer.diffusion.times_drawn import starved_times
from trainer.kinds import AnyRun, folder_of, freeze_any, processes_of, start_command
from trainer.layout.config import ParallelConfig
from trainer.log_config import WandbMode
from trainer.mirror.alerts import check_alerts, variables_of
from trainer.vae.config import PerceptualRun, VaeRun

FREE_EPOCHS = 4  # up to here repeated data is worth about as much as new (Muennighoff et al. 2023)
STEP_SECONDS = 600.0
_NAME = "one step"
# Weights, gradients, their sum, two moments and the average in fp32; activations come on top.
_HELD_BYTES = 6 * 4
_WANDB_MODES = ("online", "run", "offline", "dryrun", "disabled", "shared")


def refuse_unready(run: AnyRun) -> None:
    """Raise ValueError where a run would fail for what can be seen at once."""
    refuse_bad(find_missing(run))


def find_missing(run: AnyRun) -> list[Check]:
    """Look at what costs nothing: splits on this disk, room for a checkpoint, the key of W&B."""
    return [*_splits(run), _room(run, kept=0), *_mirror(run)]


def look(run: AnyRun) -> list[Check]:
    """Look at all that can be seen without training."""
    room = _room(run, run.checkpoint.keep)
    return [*_splits(run), *_data(run), room, *_mirror(run), *_alerts(run), _keys(run)]


def params_of(run: AnyRun) -> int:
    """Return the trainable parameters of a run, at most."""
    if isinstance(run, RunConfig):
        return count_params(run.model).total
    if isinstance(run, VaeRun):
        return count_vae_params(run.vae)
    if isinstance(run, PerceptualRun):
        return count_perceptual_params(run.perceptual, run.labels)
    network = count_captioner_params(run.captioner, most_pieces(run.words.most))
    return network + (run.captioner.width + 1) * run.hints


def splits_of(run: AnyRun) -> Iterator[tuple[str, str, str]]:
    """Yield (key, root, split) of every split that a run reads."""
    data = run.data
    for number, member in enumerate(data.mixture):
        key, split = f"data.mixture[{number}].split", member.split or data.train_split
        yield key, member.root or data.root, split
    if not data.mixture:
        yield "data.train_split", data.root, data.train_split
    for split in _held_out(run):
        yield _held_out_key(run), data.root, split


def _held_out(run: AnyRun) -> list[str]:
    if isinstance(run, PerceptualRun):
        return [run.val_split]
    return [run.validation_split] if isinstance(run, CaptionerRun) else run.validation.splits


def _held_out_key(run: AnyRun) -> str:
    if isinstance(run, PerceptualRun):
        return "val_split"
    return "validation_split" if isinstance(run, CaptionerRun) else "validation.splits"


def _splits(run: AnyRun) -> Iterator[Check]:
    """Tell which splits are missing from folders; a URL's are told by :func:`_data`."""
    absent = set()
    for key, root, split in splits_of(run):
        if is_url(root) or root in absent:
            continue
        if not Path(root).is_dir():
            absent.add(root)
            remedy = "Make it with kinescale ingest or kinescale encode, or choose another"
            yield Check(f"data.root={root}", Verdict.bad, "there is no such folder", f"{remedy}.")
        elif (Path(root) / split / INDEX_NAME).is_file():
            yield Check(f"{key}={split}", Verdict.good, f"is in {root}")
        else:
            yield Check(f"{key}={split}", Verdict.bad, f"{root} has no such split", _instead(root))


def _instead(root: str) -> str:
    found = sorted(path.parent.name for path in Path(root).glob(f"*/{INDEX_NAME}"))
    if found:
        return f"It has {', '.join(found)}: choose of these."
    return f"It has none: ingest it, or index its shards with kinescale index {root} SPLIT."


def _data(run: AnyRun) -> Iterator[Check]:
    """Read the indexes: clips, tokens, how often each is met, and who encoded them."""
    roots = {root for _, root, _ in splits_of(run)}
    if any(not is_url(root) and not Path(root).is_dir() for root in roots):
        return
    try:
        for _, root, split in splits_of(run):
            if is_url(root):
                yield _remote(run.data, root, split)
        training = read_mixture(run.data, run.data.train_split)
    except ValueError as error:
        yield of_error("data", error)
        return
    yield Check("data", Verdict.good, f"{counted(len(training.infos), 'clip')} to train on")
    if not isinstance(run, RunConfig):
        return
    whole = len(training.infos)
    training = cut_long(training, run.cell, run.data.pack_tokens)
    if pieces := num_pieces(training.infos):
        long = pieces - (len(training.infos) - whole)
        yield Check(
            "data",
            Verdict.good,
            f"{counted(long, 'clip')} longer than data.pack_tokens={run.data.pack_tokens}: cut in "
            f"time, into {pieces} pieces",
        )
    try:
        check_encoding(run)
        horizon = plan_horizon(run, training.infos, training.spans)
    except ValueError as error:
        yield of_error("data", error)
        return
    lengths = tally(lengths_of(training.infos, run.cell))
    once = sum(length * clips for length, clips in lengths.items())
    if starved := starved_times(run, lengths):
        remedy = "Set objective.most_shift, raise shift_tokens, or choose objective.density."
        yield Check("objective", Verdict.warning, starved, remedy)
    passes = horizon.steps * horizon.step_tokens / once
    told = judge(
        "tokens", passes <= FREE_EPOCHS,
        f"{counted(horizon.steps, 'step')} of {horizon.step_tokens:,.0f} are "
        f"{shown_times(passes)} passes over {once:,}",
        f"Beyond {FREE_EPOCHS} repeated data is worth less than new.", Verdict.warning,
    )  # fmt: skip
    yield replace(told, size=passes)


def _remote(data: DataConfig, root: str, split: str) -> Check:
    folder, _ = open_root(data, root)
    shown = masked(root, os.environ)
    return Check(f"data.root={shown}", Verdict.good, f"{len(read_index(folder, split)):,} {split}")


def _room(run: AnyRun, kept: int) -> Check:
    """Compare what a run saves with what is free where it saves. kept: checkpoints beside one."""
    folder, size = folder_of(run).absolute(), STATE_BYTES * params_of(run)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        rule = f"nothing can be written below {there}"
        return Check(f"run_root={run.run_root}", Verdict.bad, rule, "Choose another folder.")
    free, need = shutil.disk_usage(there).free, (kept + 1) * size
    return judge(
        "disk", need <= free,
        f"{kept + 1} x {shown_bytes(size)} of checkpoints, {shown_bytes(free)} free in {there}",
        "Make room, set checkpoint.keep=1, or choose another run_root.", Verdict.bad,
    )  # fmt: skip


def _mirror(run: AnyRun) -> Iterator[Check]:
    """Say where W&B will go; training does not depend on it, so nothing is bad."""
    if not isinstance(run, RunConfig) or run.log.wandb is WandbMode.disabled:
        return
    said = os.environ.get("WANDB_MODE", run.log.wandb.value)
    known = said in _WANDB_MODES
    if not known or said in ("online", "run", "shared"):
        remedy = "Set WANDB_API_KEY, or call wandb login; else it is mirrored offline."
        found = f"{said}, {'with a key' if _has_key() else 'and there is no key'}"
        if not known:
            found, remedy = f"WANDB_MODE={said} is no mode", f"Use {', '.join(_WANDB_MODES)}."
        yield judge("W&B", known and _has_key(), found, remedy, Verdict.warning)
    else:
        yield Check("W&B", Verdict.good, said)


def _alerts(run: AnyRun) -> Iterator[Check]:
    if isinstance(run, RunConfig):
        yield from check_alerts(run.log.alerts, os.environ)


def variables_read(run: AnyRun) -> list[str]:
    """Return the environment variables of keys that a run reads where it is started."""
    if not isinstance(run, RunConfig):
        return []
    mirrored = run.log.wandb is WandbMode.online and bool(os.environ.get("WANDB_API_KEY"))
    return [*variables_of(run.log.alerts, os.environ), *["WANDB_API_KEY"] * mirrored]


def _has_key() -> bool:
    """Tell whether wandb will find a key, as it looks: the variable, then ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    address = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    host = address.partition("://")[2].split("/")[0].split(":")[0]
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


def _keys(run: AnyRun) -> Check:
    try:
        refuse_secrets(texts_in(asdict(run)), os.environ)
    except ValueError as error:
        return of_error("keys", error)
    return Check("keys", Verdict.good, "none in the config")


def try_step(run: AnyRun) -> Check:
    """Train one step of one pack a rank, save and validate on a few clips; leave nothing behind.

    Here, in the run's own layout where this machine has a core for each process, else in one.
    """
    need, free = _HELD_BYTES * params_of(run), psutil.virtual_memory().available
    if need > free / 2:
        found = (
            f"was not tried: it takes {shown_bytes(need)} of {shown_bytes(free)} memory and more"
        )
        remedy = "Try it where it will run, with horizon.steps=1 name=try."
        return Check(_NAME, Verdict.warning, found, remedy)
    root = folder_of(run).absolute().parent
    there = next(path for path in (root, *root.parents) if path.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(_NAME, Verdict.bad, f"nothing can be written in {there}", "See run_root.")
    with tempfile.TemporaryDirectory(prefix=".check-", dir=there) as scratch:
        return _step_in(Path(scratch), run)


def _step_in(scratch: Path, run: AnyRun) -> Check:
    small = one_step(run, str(scratch))
    try:
        folder = freeze_any(small)
    except ValueError as error:
        return of_error(_NAME, error)
    words = start_command(small, folder)
    with doing("trying one step, its start included"), subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=STEP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            found = f"did not end in {STEP_SECONDS:.0f} s"
            return Check(_NAME, Verdict.warning, found, "Try a smaller pack, or where it will run.")
        except BaseException:
            process.terminate()
            raise
    if process.returncode == 0 and (folder / "result.json").is_file():
        return Check(_NAME, Verdict.good, f"trained, saved and validated ({run.name})")
    lines = [line for line in said.splitlines() if line.strip()] or ["it said nothing"]
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    text = errors[0].removeprefix("error: ").replace(str(scratch), "RUN")
    return Check(_NAME, Verdict.bad, text.rstrip("."), "Run the same command without check=true "
                 "to read more.")  # fmt: skip


def one_step(run: AnyRun, root: str) -> AnyRun:
    """Return a run of the same model and data that ends after a step, below another root."""
    here = processes_of(run) <= (os.cpu_count() or 1)
    if isinstance(run, CaptionerRun):
        few = min(run.validation_samples, 8)
        return replace(run, steps=1, validation_samples=few, run_root=root)
    parallel = run.parallel if here else _alone(run.parallel)
    data = replace(run.data, packs_per_step=max(1, parallel.layout.dp))
    if isinstance(run, PerceptualRun):
        return replace(run, steps=1, val_samples=8, parallel=parallel, data=data, run_root=root)
    if isinstance(run, VaeRun):
        measured = replace(run.validation, samples=1, statistics_samples=2)
        return replace(
            run, steps=1, components=min(run.components, 2), validation=measured, parallel=parallel,
            data=data, run_root=root,
        )  # fmt: skip
    return replace(
        run,
        horizon=HorizonConfig(steps=1),
        branch=BranchConfig(),
        validation=replace(run.validation, samples=1, curve_points=0),
        log=replace(run.log, wandb=WandbMode.disabled),
        parallel=parallel,
        data=data,
        run_root=root,
    )


def _alone(parallel: ParallelConfig) -> ParallelConfig:
    """Return one process of a layout; what many processes share needs them."""
    stage = min(parallel.zero_stage, 1)  # bf16 needs one
    return ParallelConfig(
        zero_stage=stage,
        device=parallel.device,
        precision=parallel.precision,
        gradients=parallel.gradients,
        recompute=parallel.recompute,
    )
