"""What an architecture is, as a value: the facts of its parameters and blocks, and how to build it.

Torch-free. Counts, roles, initial values, the cuts of tensor parallelism, stages, traffic and the
planner's memory and time all derive from one :class:`Specification` (docs/decisions/010). An
architecture is a file of ``models/architectures``, or any module named with dots, that holds an
``ARCHITECTURE``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

from models.config import ModelConfig
from models.seat import member, member_names

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


class Role(StrEnum):
    """What a parameter is for; decides how fast it learns and decays (models/roles.py)."""

    embedding = "embedding"  # from a fixed-size input to the width
    matrix = "matrix"  # from width to width
    head = "head"  # from the width to a fixed-size output
    vector = "vector"  # norms, biases, offsets, learned tokens


class Initial(StrEnum):
    """What a parameter begins as."""

    zeros = "zeros"
    ones = "ones"
    fan_in = "fan_in"  # normal, of the variance 1 / inputs
    normal = "normal"  # standard normal


class Reads(StrEnum):
    """What a matrix is multiplied with."""

    nothing = "nothing"
    rows = "rows"  # every row of the pack
    captions = "captions"  # every caption token
    spans = "spans"  # one condition a span, which is a segment where each has one time


@dataclass(frozen=True)
class Split:
    """How a parameter falls into equal parts that work side by side.

    Along ``dim`` lie ``groups`` equal blocks (queries, keys and values, say); each is cut evenly,
    and a part has its share of every block.
    """

    dim: int
    groups: int = 1

    def cut(self, full: "Tensor", index: int, count: int) -> "Tensor":
        """Return part ``index`` of ``count``; a view where ``groups`` is 1."""
        blocks = full.unflatten(self.dim, (self.groups, full.shape[self.dim] // self.groups))
        return blocks.chunk(count, self.dim + 1)[index].flatten(self.dim, self.dim + 1)

    def join(self, parts: "list[Tensor]") -> "Tensor":
        """Put all parts together; the inverse of :meth:`cut`."""
        import torch

        blocks = [p.unflatten(self.dim, (self.groups, -1)) for p in parts]
        return torch.cat(blocks, self.dim + 1).flatten(self.dim, self.dim + 1)

    def shape(self, full: Shape, count: int) -> Shape:
        """Return the shape of a part of a parameter of shape ``full``."""
        return tuple(n // count if d == self.dim else n for d, n in enumerate(full))


@dataclass(frozen=True)
class Weight:
    """One parameter.

    name: in the network; of a block's, within the block. part: the line of the count it belongs to.
    initial: what it begins as; numbers stand for as many equal blocks along the first dimension.
    reads: what a matrix is multiplied with; share: how much of it (the experts at work, say).
    cut: into parts for tensor parallelism; None where every tensor rank holds all of it. A matrix
    cut along dim 0 reads whole rows, one cut along dim 1 is a sum over parts; a vector that is cut
    belongs to its module's heads.
    """

    name: str
    shape: Shape
    part: str
    role: Role = Role.vector
    initial: Initial | tuple[float, ...] = Initial.zeros
    reads: Reads = Reads.nothing
    cut: Split | None = None
    share: float = 1.0

    @property
    def size(self) -> int:
        """Number of its values."""
        return prod(self.shape)

    @property
    def products(self) -> int:
        """Multiplications of one row, caption token or span with it."""
        if self.reads is Reads.nothing:
            return 0
        return self.size if self.share == 1.0 else round(self.size * self.share)


def matrix(
    name: str,
    outputs: int,
    inputs: int,
    part: str,
    reads: Reads = Reads.rows,
    cut: Split | None = None,
    role: Role = Role.matrix,
    initial: Initial = Initial.fan_in,
    share: float = 1.0,
) -> Weight:
    """Return the weight of a linear layer."""
    return Weight(f"{name}.weight", (outputs, inputs), part, role, initial, reads, cut, share)


@dataclass(frozen=True)
class Attention:
    """An attention of a block: ``module`` holds ``attend``, ``num_heads`` and cut layers.

    keys: rows of the same segment, or captions. width: of all heads together.
    """

    module: str
    keys: Reads
    width: int


@dataclass(frozen=True)
class Kept:
    """What autograd keeps of a block from forward to backward.

    rows: values a row, of the network's precision; gathered: how many more where modulation gathers
    rows (CUDA, compiled); exchanged: where context ranks trade rows for heads; summed: what a sum
    over tensor ranks keeps, in values of the whole row. statistics: values a row that are fp32
    always (means and deviations of norms, attention's normalisers). captions,
    caption_statistics: the same a caption token. spans: values a span.
    """

    rows: int
    gathered: int = 0
    exchanged: int = 0
    summed: int = 0
    statistics: int = 0
    captions: int = 0
    caption_statistics: int = 0
    spans: int = 0


@dataclass(frozen=True)
class Block:
    """What all blocks of a network are.

    kept: with nothing computed again; selective: with all but matrix products and attention.
    working, gathered_working: values a row on the way in its backward pass, beyond what was kept,
    without and with gathered rows. traffic: values a row that elementwise kernels and products read
    and write in a forward pass on CUDA.
    """

    weights: tuple[Weight, ...]
    attentions: tuple[Attention, ...]
    kept: Kept
    selective: Kept
    working: float
    gathered_working: float
    traffic: float


@dataclass(frozen=True)
class Edge:
    """What embeddings, head and loss keep: values a row, more where rows are gathered, and fp32."""

    rows: int
    gathered: int
    values: int


@dataclass(frozen=True)
class Field:
    """A tensor that flows from block to block and between stages: one row for each it reads."""

    name: str
    reads: Reads
    width: int


@dataclass(frozen=True)
class Specification:
    """The facts of a network of one size.

    before, after: parameters of the first and of the last stage; their order, with the blocks
    between them, is that of ``named_parameters``. stream: the fields of the network's ``stream``.
    rotation: complex values a row that blocks share (rotary factors).
    """

    before: tuple[Weight, ...]
    block: Block
    depth: int
    after: tuple[Weight, ...]
    stream: tuple[Field, ...]
    edge: Edge
    rotation: int = 0

    def numbered(self, number: int) -> Iterator[Weight]:
        """Yield the weights of a block under their full names."""
        for weight in self.block.weights:
            yield replace(weight, name=f"blocks.{number}.{weight.name}")

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """All parameters by full name, in the order of ``named_parameters``."""
        blocks = (weight for number in range(self.depth) for weight in self.numbered(number))
        return {weight.name: weight for weight in (*self.before, *blocks, *self.after)}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shapes of all parameters by name."""
        return {name: weight.shape for name, weight in self.weights.items()}

    @cached_property
    def cuts(self) -> dict[str, Split]:
        """How parameters are cut, by name; what is not in here is whole on every tensor rank."""
        return {name: w.cut for name, w in self.weights.items() if w.cut is not None}

    @cached_property
    def products(self) -> dict[Reads, int]:
        """Multiplications of one row, caption token and span with all matrices."""
        return {
            reads: products(self.before, reads)
            + self.depth * products(self.block.weights, reads)
            + products(self.after, reads)
            for reads in Reads
        }

    @cached_property
    def attended(self) -> dict[Reads, int]:
        """Widths of all attentions over keys of a kind."""
        widths = dict.fromkeys(Reads, 0)
        for attention in self.block.attentions:
            widths[attention.keys] += self.depth * attention.width
        return widths

    @cached_property
    def row_width(self) -> int:
        """Values of a row of the residual stream."""
        return sum(field.width for field in self.stream if field.reads is Reads.rows)

    @cached_property
    def gathers(self) -> tuple[int, ...]:
        """Inputs of each layer of a block that reads the rows of all tensor ranks."""
        return tuple(w.shape[1] for w in self.block.weights if _is_cut(w, 0))

    @cached_property
    def sums(self) -> tuple[int, ...]:
        """Outputs of each layer of a block that is summed over tensor ranks."""
        return tuple(w.shape[0] for w in self.block.weights if _is_cut(w, 1))

    @cached_property
    def exchanges(self) -> tuple[int, ...]:
        """Widths of a block's attentions among rows, for which context ranks exchange them."""
        return tuple(a.width for a in self.block.attentions if a.keys is Reads.rows)

    def message_values(self, rows: int, spans: int, captions: int) -> int:
        """Return the values of a stream that holds so many rows, spans and caption tokens."""
        times = {Reads.rows: rows, Reads.spans: spans, Reads.captions: captions}
        return sum(times[field.reads] * field.width for field in self.stream)


def _is_cut(weight: Weight, dim: int) -> bool:
    cut = weight.cut is not None and weight.cut.dim == dim
    return cut and weight.reads is Reads.rows and len(weight.shape) == 2


def products(weights: Iterable[Weight], reads: Reads) -> int:
    """Return the multiplications of one row, caption token or span with all of the weights."""
    return sum(weight.products for weight in weights if weight.reads is reads)


@dataclass(frozen=True)
class Architecture:
    """A kind of network.

    specify: the facts of a size. build: the network itself, see ``models.network.Network``; called
    with (config, attend, precondition). options: the keys of ``model.options`` that it reads, with
    what they mean. check: raises ValueError on sizes that it cannot have.
    """

    specify: Callable[[ModelConfig], Specification]
    build: Callable[..., Any]
    options: Mapping[str, str]
    check: Callable[[ModelConfig], None] | None = None


def architecture_names() -> list[str]:
    """Return the architectures that come with this package."""
    return member_names("models.architectures")


def find_architecture(name: str) -> Architecture:
    """Return the architecture of a name; raise ValueError with the remedy.

    A name without dots is a file of ``models/architectures``, one with dots any module.
    """
    found = member("model.architecture", name, "models.architectures", "ARCHITECTURE")
    if not isinstance(found, Architecture):
        raise ValueError(
            f"model.architecture={name}: its ARCHITECTURE is no Architecture. See models/README.md."
        )
    return found


def check_model(model: ModelConfig) -> None:
    """Raise ValueError on a shape that cannot be built, of any architecture."""
    model.check()
    architecture = find_architecture(model.architecture)
    for key, value in model.options.items():
        if key not in architecture.options:
            known = ", ".join(architecture.options) or "none"
            raise ValueError(
                f"model.options.{key}={value}: is not an option of "
                f"model.architecture={model.architecture}. Options: {known}."
            )
    if architecture.check is not None:
        architecture.check(model)


def specification_of(model: ModelConfig) -> Specification:
    """Return the facts of a model."""
    return _specify(tuple((key, _frozen(value)) for key, value in vars(model).items()))


@lru_cache(maxsize=256)
def _specify(values: tuple[tuple[str, Any], ...]) -> Specification:
    given: dict[str, Any] = dict(values)
    given |= {"spread": list(given["spread"]), "options": dict(given["options"])}
    model = ModelConfig(**given)
    return find_architecture(model.architecture).specify(model)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value
