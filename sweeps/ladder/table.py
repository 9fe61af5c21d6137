"""Print a ladder: shapes whose parameters rise by a factor, and published shapes beside them.

  kinescale ladder
  kinescale ladder low=1e5 high=1e9 ratio=2 head_dim=64
  kinescale ladder low=1e8 tp=8 cp=2 pp=4 --json > ladder.json

  low= high=          parameters to begin and end with (default: the smallest feasible, and 3e10)
  ratio=1.7           from rung to rung
  tp= cp= pp= interleave=
                      a layout that every rung has to allow: heads divide by tp x cp, widths by tp,
                      depth by pp x interleave
  head_dim=64         size of a head to aim at; narrow models have smaller ones
  channels=16         of the latents; text_width=4096: of a caption token's state
  clip=10000          video tokens of a clip, and caption=128 caption tokens, for FLOPs a token
  --json              the same as JSON: rungs, published

FLOPs are those of training (forward and backward) a video token; both are counted by
models/count.py.
"""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any

from annotated_types import Ge, Gt
from typing_extensions import Doc

from data.bounds import check_bounds
from data.shell import command
from models.config import Count, HeadDim, ModelConfig
from models.count import count_flops, count_params
from sweeps.ladder.shapes import Constraint, Rung, ladder, shape_for, smallest


@dataclass
class TableConfig:
    """What the command takes; its help says what it means."""

    low: Annotated[
        float, Ge(0), Doc("Parameters of the first rung; 0 takes the smallest shape there is.")
    ] = 0.0
    high: Annotated[float, Gt(0), Doc("Most parameters of a rung.")] = 3e10
    ratio: Annotated[float, Gt(1), Doc("Factor in parameters between two rungs.")] = 1.7
    tp: Annotated[Count, Doc("Tensor parallel ranks that every rung allows.")] = 1
    cp: Annotated[Count, Doc("Context parallel ranks that every rung allows.")] = 1
    pp: Annotated[Count, Doc("Pipeline stages that every rung allows.")] = 1
    interleave: Annotated[Count, Doc("Chunks of blocks of a pipeline stage.")] = 1
    head_dim: Annotated[HeadDim, Doc("Size of a head to aim at.")] = 64
    channels: Annotated[Count, Doc("Channels of a latent.")] = 16
    text_width: Annotated[Count, Doc("Size of a caption token state.")] = 4096
    clip: Annotated[Count, Doc("Tokens of a clip.")] = 10000
    caption: Annotated[Count, Doc("Tokens of its caption.")] = 128

    def check(self) -> None:
        """Raise ValueError on what cannot be counted."""
        check_bounds(self)
        self.base().check()
        self.constraint.check()

    @property
    def constraint(self) -> Constraint:
        """The layout that rungs allow."""
        return Constraint(self.tp, self.cp, self.pp, self.interleave)

    def base(self) -> ModelConfig:
        """Return the model whose widths of tokens and text the rungs share."""
        width = self.head_dim * max(1, -(-2 * self.channels // self.head_dim))
        return ModelConfig(
            width=width, head_dim=self.head_dim, text_width=self.text_width,
            values_per_token=4 * self.channels, spread=[1.0] * self.channels,
        )  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A shape that others trained: what they state, and where."""

    name: str
    width: int
    depth: int
    heads: int
    params: float
    source: str


PUBLISHED = (
    Published("DiT-S", 384, 12, 6, 33e6, "Peebles and Xie 2023, table 1"),
    Published("DiT-B", 768, 12, 12, 130e6, "Peebles and Xie 2023, table 1"),
    Published("DiT-L", 1024, 24, 16, 458e6, "Peebles and Xie 2023, table 1"),
    Published("DiT-XL", 1152, 28, 16, 675e6, "Peebles and Xie 2023, table 1"),
    Published("Wan 2.1 1.3B", 1536, 30, 12, 1.3e9, "Wan team 2025, arXiv 2503.20314"),
    Published("Wan 2.1 14B", 5120, 40, 40, 14e9, "Wan team 2025, arXiv 2503.20314"),
    # 20 blocks with weights of their own for text, then 40 that share them.
    Published("HunyuanVideo", 3072, 60, 24, 13e9, "Kong et al. 2024, arXiv 2412.03603"),
)


def rows_of(config: TableConfig) -> list[dict[str, Any]]:
    """Return a row for each rung: its shape, parameters by part, FLOPs a token, the ratio."""
    config.check()
    base, constraint = config.base(), config.constraint
    low = config.low or float(smallest(base, constraint).params)
    rungs = ladder(low, config.high, config.ratio, base, constraint)
    ratios = [None, *(large.params / small.params for small, large in pairwise(rungs))]
    return [
        _row(rung, base, config) | {"ratio": ratio}
        for rung, ratio in zip(rungs, ratios, strict=True)
    ]


def _row(rung: Rung, base: ModelConfig, config: TableConfig) -> dict[str, Any]:
    model = rung.of(base)
    flops = count_flops(model, [config.clip], [config.caption]).total
    return {
        "width": rung.width,
        "depth": rung.depth,
        "heads": model.num_heads,
        "head_dim": rung.head_dim,
        "params": rung.params,
        "parts": count_params(model).parts,
        "flops_per_token": flops / config.clip,
    }


def published_rows(config: TableConfig) -> list[dict[str, Any]]:
    """Return each published shape with its count here and our rung of as many parameters."""
    found = []
    base, constraint = config.base(), config.constraint
    for shape in PUBLISHED:
        model = Rung(shape.width, shape.depth, shape.width // shape.heads, 0).of(base)
        try:
            rung = asdict(shape_for(shape.params, base, constraint=constraint))
        except ValueError:  # the layout asks for more heads than a model of that size has
            rung = None
        found.append(asdict(shape) | {"params_here": count_params(model).total, "rung": rung})
    return found


def _lines(columns: list[str], cells: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (columns, *cells)
    ]


def table(rows: list[dict[str, Any]], published: list[dict[str, Any]]) -> str:
    """Return both tables as text."""
    parts = list(rows[0]["parts"])
    names = [part.replace("self_attention", "self-att").replace("_", "-") for part in parts]
    names = [name.replace("cross-attention", "cross-att") for name in names]
    columns = ["width", "depth", "heads", "params", "ratio", *names, "FLOPs/token", "/ 6 N"]
    cells = [
        [
            str(row["width"]), str(row["depth"]), str(row["heads"]), f"{row['params']:.4g}",
            f"{row['ratio']:.2f}" if row["ratio"] else "",
            *(f"{row['parts'][part] / row['params']:.1%}" for part in parts),
            f"{row['flops_per_token']:.3g}", f"{row['flops_per_token'] / 6 / row['params']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    text = _lines(columns, cells)
    columns = ["published", "width", "depth", "heads", "stated", "same shape here", "our rung"]
    cells = [
        [
            row["name"], str(row["width"]), str(row["depth"]), str(row["heads"]),
            f"{row['params']:.3g}", f"{row['params_here']:.3g}",
            "{width} x {depth}, {params:.3g}".format(**row["rung"]) if row["rung"] else "none",
        ]
        for row in published
    ]  # fmt: skip
    sources = ["source", *(row["source"] for row in published)]
    below = [f"{a}  {b}" for a, b in zip(_lines(columns, cells), sources, strict=True)]
    return "\n".join([*text, "", *below])


@command(__doc__, needs_words=False, prints_only=True)
def main(argv: list[str]) -> int:
    """Print the tables; return the exit status."""
    from trainer.compose import parse_as  # OmegaConf: the help need not wait for it

    config = parse_as(TableConfig, [word for word in argv if word != "--json"])
    rows = rows_of(config)
    published = published_rows(config)
    if "--json" in argv:
        print(json.dumps({"rungs": rows, "published": published}, indent=1))
    else:
        print(table(rows, published))
    return 0
