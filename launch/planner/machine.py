"""Schema of a machine, and the simple estimates that need nothing but it; torch-free.

Values live in ``conf/machine``, each with its source. What a layout makes of a machine is in
``launch/planner``; here is the rate of one device that nobody has to wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launch.planner.network import DIT_TRAFFIC
from models.config import ModelConfig
from models.dit.count import count_flops
from trainer.compose import explain, refuse_unknown

MACHINE_DIR = Path(__file__).parents[1] / "conf" / "machine"
# Tokens of a clip and of its caption where none are known: those of the demo.
TYPICAL_SEGMENT, TYPICAL_CAPTION = 320, 32


@dataclass
class LinkConfig:
    """A network between devices.

    bytes_per_second: what one device sends while it receives as much.
    latency_seconds: of a message, whatever its size.
    """

    bytes_per_second: float = 1e9
    latency_seconds: float = 1e-5


@dataclass
class PriceConfig:
    """What a device costs an hour, in which money, as of when, and whose price that is."""

    per_device_hour: float = 0.0
    currency: str = "USD"
    as_of: str = ""
    source: str = ""


@dataclass
class EfficiencyConfig:
    """What of a data sheet arrives in training; few constants, each of one physical thing.

    matmul, attention: shares of the peak that matrix products and attention kernels sustain;
    products over D reach D / (D + half_width) of theirs.
    memory: share of the memory bandwidth that elementwise kernels and the optimizer reach.
    link: share of a link's bandwidth that collectives reach.
    hidden: share of the compute beside it that traffic can hide behind.
    pack_seconds, block_seconds: time of a forward and backward pass, and of each block in it, that
    does not depend on the size of tensors: starting kernels. An accelerator works meanwhile, and
    waits where it is done sooner.
    """

    matmul: float = 0.7
    attention: float = 0.37
    half_width: float = 1000.0
    memory: float = 0.8
    link: float = 0.8
    hidden: float = 0.5
    pack_seconds: float = 0.0
    block_seconds: float = 0.0


@dataclass
class MachineConfig:
    """A kind of node and what joins nodes.

    accelerator: false for CPUs. devices_per_node: of them; on a CPU, processes. memory_bytes: of a
    device; host_memory_bytes: of a node. reserved_bytes: of a device, for its context, NCCL and
    fragmentation. peak_flops: dense FLOP/s of a device by precision (fp32, bf16).
    memory_bytes_per_second: of a device; host_bytes_per_second: its share of the host's memory, and
    of the way there, for what is offloaded. node_link, network: between devices of one node, and of
    two. watts: of a device under load with its share of the node; power_overhead: what the hall
    draws over what its nodes draw (PUE).
    """

    name: str = ""
    accelerator: bool = True
    devices_per_node: int = 8
    memory_bytes: float = 80e9
    host_memory_bytes: float = 1e12
    reserved_bytes: float = 4e9
    peak_flops: dict[str, float] = field(default_factory=lambda: {"fp32": 1e12})
    memory_bytes_per_second: float = 1e12
    host_bytes_per_second: float = 20e9
    node_link: LinkConfig = field(default_factory=LinkConfig)
    network: LinkConfig = field(default_factory=LinkConfig)
    watts: float = 1000.0
    power_overhead: float = 1.2
    price: PriceConfig = field(default_factory=PriceConfig)
    efficiency: EfficiencyConfig = field(default_factory=EfficiencyConfig)

    def check(self) -> None:
        """Raise ValueError on values that no machine has."""
        if self.devices_per_node < 1:
            raise ValueError(
                f"machine.devices_per_node={self.devices_per_node}: must be at least 1. Use 8."
            )
        positive = (
            "memory_bytes",
            "host_memory_bytes",
            "memory_bytes_per_second",
            "host_bytes_per_second",
            "watts",
        )
        _check_positive("machine", self, positive)
        for key in ("node_link", "network"):
            _check_positive(f"machine.{key}", getattr(self, key), ("bytes_per_second",))
        for precision, flops in self.peak_flops.items():
            if flops <= 0:
                raise ValueError(
                    f"machine.peak_flops.{precision}={flops:g}: must be positive. Use 1e12."
                )
        for key in ("matmul", "attention", "memory", "link", "hidden"):
            share = getattr(self.efficiency, key)
            if not (0 < share <= 1 or (key == "hidden" and share == 0)):
                raise ValueError(
                    f"machine.efficiency.{key}={share:g}: must be a share in (0, 1]. Use 0.7."
                )
        if self.power_overhead < 1:
            raise ValueError(
                f"machine.power_overhead={self.power_overhead:g}: must be at least 1. Use 1.2."
            )
        for key, value in (
            ("reserved_bytes", self.reserved_bytes),
            ("price.per_device_hour", self.price.per_device_hour),
            ("efficiency.half_width", self.efficiency.half_width),
            ("efficiency.pack_seconds", self.efficiency.pack_seconds),
            ("efficiency.block_seconds", self.efficiency.block_seconds),
        ):
            if value < 0:
                raise ValueError(f"machine.{key}={value:g}: must not be negative. Use 0.")

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

        With F the FLOPs of a pack (``models.dit.count``, with backward), L blocks, and peak shares:

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
        seconds += attention / (share.attention * peak)
        moved = DIT_TRAFFIC * model.width * pack_tokens * (2 if precision == "bf16" else 4)
        seconds += 3 * model.depth * moved / (share.memory * self.memory_bytes_per_second)
        return total / (seconds + self.start_seconds(model.depth, seconds))

    def start_seconds(self, blocks: int, work_seconds: float) -> float:
        """Return the seconds by which starting kernels of blocks prolongs their work."""
        start = self.efficiency.pack_seconds + blocks * self.efficiency.block_seconds
        return max(0.0, start - work_seconds) if self.accelerator else start

    def matmul_share(self, width: int) -> float:
        """Return the share of the peak that products over ``width`` sustain."""
        return self.efficiency.matmul * width / (width + self.efficiency.half_width)

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
    """Load ``conf/machine/NAME.yaml``; ``overrides`` are key=value, as price.per_device_hour=2.

    Raises ValueError with the remedy.
    """
    if name not in machine_names():
        allowed = ", ".join(machine_names())
        raise ValueError(f"machine={name}: unknown choice. Allowed: {allowed}.")
    schema = OmegaConf.structured(MachineConfig)
    try:
        values = OmegaConf.load(MACHINE_DIR / f"{name}.yaml")
        given = OmegaConf.from_dotlist(list(overrides))
        for extra in (values, given):
            assert isinstance(extra, DictConfig)
            refuse_unknown(extra, _open(schema), "machine.")
        merged = OmegaConf.merge(schema, values, given)
        machine = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"machine.{explain(error, schema)}") from error
    assert isinstance(machine, MachineConfig)
    machine.name = name
    machine.check()
    return machine


def _open(schema: DictConfig) -> DictConfig:
    """Return the schema with every precision a machine may state, for ``refuse_unknown``."""
    merged = OmegaConf.merge(schema, {"peak_flops": {"fp32": 1.0, "bf16": 1.0}})
    assert isinstance(merged, DictConfig)
    return merged


def _check_positive(prefix: str, part: object, keys: Sequence[str]) -> None:
    for key in keys:
        value = getattr(part, key)
        if value <= 0:
            raise ValueError(f"{prefix}.{key}={value:g}: must be positive. Use 1e12.")
