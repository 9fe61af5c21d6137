"""Schema of a machine, and the simple estimates that need nothing but it; torch-free.

Values live in ``conf/machine``, each with its source. What a layout makes of a machine is in
``launch/planner``; here is the rate of one device that nobody has to wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import Doc

from data.bounds import check_bounds
from data.keys import meant
from data.reading import read_object
from models.architecture import specification_of
from models.config import ModelConfig
from models.count import count_flops
from trainer.compose import explain, refuse_unknown

Positive = Annotated[float, Gt(0)]
Amount = Annotated[float, Ge(0)]
Part = Annotated[float, Gt(0), Le(1)]
MACHINE_DIR = Path(__file__).parents[1] / "conf" / "machine"
# Tokens of a clip and of its caption where none are known: those of the demo.
TYPICAL_SEGMENT, TYPICAL_CAPTION = 320, 32


@dataclass
class LinkConfig:
    """A network between devices."""

    bytes_per_second: Annotated[
        Positive, Doc("What one device sends while it receives as much.")
    ] = 1e9
    latency_seconds: Annotated[Amount, Doc("Of a message, whatever its size.")] = 1e-5


@dataclass
class PriceConfig:
    """What a device costs an hour."""

    per_device_hour: Annotated[Amount, Doc("Price of a device for an hour; 0 shows no cost.")] = 0.0
    currency: Annotated[str, Doc("In which money.")] = "USD"
    as_of: Annotated[str, Doc("As of when.")] = ""
    source: Annotated[str, Doc("Whose price that is.")] = ""


@dataclass
class EfficiencyConfig:
    """What of a data sheet arrives in training; few constants, each of one physical thing."""

    matmul: Annotated[
        Part,
        Doc(
            "Share of the peak that matrix products sustain; over D they reach D / (D + "
            "half_width) of it."
        ),
    ] = 0.7
    attention: Annotated[
        Part,
        Doc("Share of the peak that PyTorch's own attention kernels sustain, ours among them."),
    ] = 0.225
    fused_attention: Annotated[
        Part, Doc("The same of a vendor's kernels, as Transformer Engine calls them.")
    ] = 0.37
    causal: Annotated[
        Part,
        Doc(
            "Share of ``attention`` that is left where a token sees earlier ones alone; a vendor's "
            "kernels lose none that published runs show."
        ),
    ] = 0.8
    half_width: Annotated[
        Amount, Doc("Width D at which matrix products reach half of their share.")
    ] = 1000.0
    memory: Annotated[
        Part, Doc("Share of the memory bandwidth that elementwise kernels and the optimizer reach.")
    ] = 0.8
    link: Annotated[Part, Doc("Share of a link's bandwidth that collectives reach.")] = 0.8
    hidden: Annotated[
        float, Ge(0), Le(1), Doc("Share of the compute beside it that traffic can hide behind.")
    ] = 0.5
    exposed: Annotated[
        float,
        Ge(0),
        Le(1),
        Doc("Share of the traffic of sharded parameters (ZeRO 3, FSDP) that never hides."),
    ] = 0.5
    pack_seconds: Annotated[
        Amount,
        Doc(
            "Time of a forward and backward pass that does not depend on the size of "
            "tensors: starting kernels, during which an accelerator works on."
        ),
    ] = 0.0
    block_seconds: Annotated[Amount, Doc("The same of each block in it.")] = 0.0


@dataclass
class MachineConfig:
    """A kind of node and what joins nodes."""

    name: Annotated[str, Doc("Name of its file, filled in when it is loaded.")] = ""
    accelerator: Annotated[bool, Doc("Whether devices are accelerators; false for CPUs.")] = True
    devices_per_node: Annotated[int, Ge(1), Doc("Devices of a node; on a CPU, processes.")] = 8
    memory_bytes: Annotated[Positive, Doc("Memory of a device.")] = 80e9
    host_memory_bytes: Annotated[Positive, Doc("Memory of a node.")] = 1e12
    reserved_bytes: Annotated[
        Amount, Doc("Memory of a device for its context, NCCL and fragmentation.")
    ] = 4e9
    peak_flops: Annotated[
        dict[str, Positive], MinLen(1), Doc("Dense FLOP/s of a device by precision (fp32, bf16).")
    ] = field(default_factory=lambda: {"fp32": 1e12})
    memory_bytes_per_second: Annotated[Positive, Doc("Memory bandwidth of a device.")] = 1e12
    host_bytes_per_second: Annotated[
        Positive,
        Doc(
            "A device's share of the host's memory bandwidth, and of the way there, for "
            "what is offloaded."
        ),
    ] = 20e9
    node_link: Annotated[LinkConfig, Doc("Between devices of one node.")] = field(
        default_factory=LinkConfig
    )
    network: Annotated[LinkConfig, Doc("Between devices of two nodes.")] = field(
        default_factory=LinkConfig
    )
    watts: Annotated[Positive, Doc("Power of a device under load with its share of the node.")] = (
        1000.0
    )
    power_overhead: Annotated[
        float, Ge(1), Doc("What the hall draws over what its nodes draw (PUE).")
    ] = 1.2
    price: PriceConfig = field(default_factory=PriceConfig)
    efficiency: EfficiencyConfig = field(default_factory=EfficiencyConfig)

    def check(self) -> None:
        """Raise ValueError on values that no machine has."""
        check_bounds(self, "machine.")

    def peak(self, precision: str) -> float:
        """Return the dense peak FLOP/s of a device; ValueError for an unknown precision."""
        if precision not in self.peak_flops:
            allowed = ", ".join(sorted(self.peak_flops))
            raise ValueError(
                f"parallel.precision={precision}: machine={self.name} has no figure for it. "
                f"Use {allowed}, or set machine.peak_flops.{precision}."
            )
        return self.peak_flops[precision]

    def flops_per_second(
        self,
        model: ModelConfig,
        pack_tokens: int = 768,
        precision: str = "fp32",
        segment_tokens: int = TYPICAL_SEGMENT,
    ) -> float:
        """Return the training FLOP/s of one device that nobody has to wait for.

        With F the FLOPs of a pack (``models.count``, with backward), L blocks, and peak shares:

            rate = F / (F_matmul / (share peak) + F_attention / (share peak) + a + b L + moved)

        a and b are ``pack_seconds`` and ``block_seconds``: they rule where models are tiny. moved
        is the time of elementwise kernels. As ``planner.speed`` has it for one device.
        """
        segment = min(pack_tokens, segment_tokens)
        flops = count_flops(model, [segment], [TYPICAL_CAPTION])
        scale = pack_tokens / segment
        attention = scale * (flops.self_attention + flops.cross_attention)
        total = scale * flops.total
        peak, share = self.peak(precision), self.efficiency
        seconds = (total - attention) / (self.matmul_share(model.width) * peak)
        seconds += attention / (self.attention_share(fused=False, causal=False) * peak)
        traffic = specification_of(model).block.traffic
        moved = traffic * pack_tokens * (2 if precision == "bf16" else 4)
        seconds += 3 * model.depth * moved / (share.memory * self.memory_bytes_per_second)
        return total / (seconds + self.start_seconds(model.depth, seconds))

    def start_seconds(self, blocks: int, work_seconds: float) -> float:
        """Return the seconds by which starting kernels of blocks prolongs their work."""
        start = self.efficiency.pack_seconds + blocks * self.efficiency.block_seconds
        return max(0.0, start - work_seconds) if self.accelerator else start

    def matmul_share(self, width: int) -> float:
        """Return the share of the peak that products over ``width`` sustain."""
        return self.efficiency.matmul * width / (width + self.efficiency.half_width)

    def attention_share(self, fused: bool, causal: bool) -> float:
        """Return the share of the peak that attention sustains."""
        if fused:
            return self.efficiency.fused_attention
        return self.efficiency.attention * (self.efficiency.causal if causal else 1.0)

    def money(self, device_hours: float) -> float:
        """Return the price of device-hours in ``price.currency``."""
        return device_hours * self.price.per_device_hour

    def kilowatt_hours(self, device_hours: float) -> float:
        """Return the energy of device-hours, the hall's overhead included."""
        return device_hours * self.watts * self.power_overhead / 1000


def machine_names() -> list[str]:
    """Return the machines that ``conf/machine`` describes."""
    return sorted(path.stem for path in MACHINE_DIR.glob("*.yaml"))


def load_machine(name: str, overrides: Sequence[str] = ()) -> MachineConfig:
    """Load ``conf/machine/NAME.yaml``, or the file that ``name`` is the path of.

    overrides: key=value, as price.per_device_hour=2. Raises ValueError with the remedy.
    """
    path = _machine_file(name)
    schema = OmegaConf.structured(MachineConfig)
    try:
        values = OmegaConf.create(_read(path))
        given = OmegaConf.from_dotlist(list(overrides))
        for extra in (values, given):
            assert isinstance(extra, DictConfig)
            refuse_unknown(extra, _open(schema), "machine.")
        merged = OmegaConf.merge(schema, values, given)
        machine = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"machine.{explain(error, schema)}") from error
    assert isinstance(machine, MachineConfig)
    machine.name = path.stem
    machine.check()
    return machine


def _machine_file(name: str) -> Path:
    """Return the file of a machine; ValueError for a name that is none."""
    if name in machine_names():
        return MACHINE_DIR / f"{name}.yaml"
    own = Path(name)
    if own.suffix != ".yaml":
        raise ValueError(
            f"machine={name}: unknown choice. {meant(name, machine_names())} A machine of your own "
            "is named by the path of its file (machine=my/cluster.yaml)."
        )
    if not own.is_file():
        raise ValueError(
            f"machine={name}: no such file. Copy one of {MACHINE_DIR.name}/*.yaml and change it."
        )
    return own


def _read(path: Path) -> dict[str, Any]:
    """Return the keys of a machine's file; ValueError where it holds none."""
    content = read_object(path)
    if content.problem:
        raise ValueError(f"machine={path}: {content.problem}. Mend the file.")
    return content.values


def _open(schema: DictConfig) -> DictConfig:
    """Return the schema with every precision a machine may state, for ``refuse_unknown``."""
    merged = OmegaConf.merge(schema, {"peak_flops": {"fp32": 1.0, "bf16": 1.0}})
    assert isinstance(merged, DictConfig)
    return merged
