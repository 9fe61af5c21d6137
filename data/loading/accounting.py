"""Where every source pixel and every token of the packs went."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from data.dataset.sample import SampleInfo
from data.dataset.tokens import Cell, grid
from data.loading.pieces import Piece


@dataclass
class MemberCount:
    """One member of a mixture: its size, the share of tokens asked for, and what was planned."""

    samples_in_split: int
    asked_share: float
    samples: int = 0
    tokens: int = 0


@dataclass
class Accounting:
    """What became of every source pixel and token that was planned so far.

    All but ``decoders``, ``dropped`` and captions follow from the plan and cover all ranks; those
    cover the packs that this rank decoded since it started. ``caption_padding``: rows of padding
    beside ``caption_rows``. Samples are visits: a second epoch counts again.
    ``pieces`` are those of clips that no pack holds; a piece's first frame ends the one before, and
    is met twice. ``edge_pixels`` are the repeated border pixels that complete the patch grid; they
    are masked from the loss and are not in ``source_pixels``. ``members`` is empty without a
    mixture.
    """

    samples_in_split: int = 0
    steps: int = 0
    packs: int = 0
    videos: int = 0
    pieces: int = 0
    images: int = 0
    source_pixels: int = 0
    edge_pixels: int = 0
    tokens: int = 0
    padding_tokens: int = 0
    image_tokens: int = 0
    rendered_tokens: int = 0
    source_samples: dict[str, int] = field(default_factory=dict)
    source_tokens: dict[str, int] = field(default_factory=dict)
    decoders: dict[str, int] = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    members: dict[str, MemberCount] = field(default_factory=dict)
    caption_rows: int = 0
    caption_padding: int = 0

    def add_member(self, name: str, num_samples: int, share: float) -> None:
        """Begin to count a member of a mixture."""
        self.members[name] = MemberCount(num_samples, share)

    def add_visit(self, name: str, length: int) -> None:
        """Count one planned sample of a member."""
        self.members[name].samples += 1
        self.members[name].tokens += length

    def add_plan(self, plan: list[list[tuple[SampleInfo, int]]], budget: int, cell: Cell) -> None:
        """Count one step's packs of ``budget`` tokens each."""
        self.steps += 1
        for pack in plan:
            self.packs += 1
            used = sum(self._add_sample(info, cell) for info, _ in pack)
            self.padding_tokens += budget - used

    def add_captions(self, rows: int, padded: int) -> None:
        """Count the caption rows of a pack, and those that it was padded to."""
        self.caption_rows += rows
        self.caption_padding += padded - rows

    def _add_sample(self, info: SampleInfo, cell: Cell) -> int:
        f, h, w = grid(info.num_frames, info.height, info.width, cell)
        pixels = info.num_frames * info.height * info.width
        # In time the first frame stands alone: a grid of f covers 1 + (f - 1) * cell_f frames.
        covered = (1 + (f - 1) * cell[0]) * h * cell[1] * w * cell[2]
        length = f * h * w
        still = info.num_frames == 1
        self.images += still
        self.pieces += isinstance(info, Piece)
        self.videos += not still
        self.source_pixels += pixels
        self.edge_pixels += covered - pixels
        self.tokens += length
        self.image_tokens += length * still
        self.rendered_tokens += length * info.rendered
        self.source_samples[info.source] = self.source_samples.get(info.source, 0) + 1
        self.source_tokens[info.source] = self.source_tokens.get(info.source, 0) + length
        return length

    @property
    def padding_share(self) -> float:
        """Padding tokens as a share of all pack budgets."""
        return self.padding_tokens / max(self.tokens + self.padding_tokens, 1)

    @property
    def edge_share(self) -> float:
        """Edge-padding pixels as a share of all pixels that tokens cover."""
        return self.edge_pixels / max(self.source_pixels + self.edge_pixels, 1)

    @property
    def rendered_share(self) -> float:
        """Tokens of rendered worlds as a share of all packed tokens."""
        return self.rendered_tokens / max(self.tokens, 1)

    @property
    def epochs(self) -> float:
        """Passes over the split, in samples."""
        return (self.videos + self.images) / max(self.samples_in_split, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return counts and shares, JSON-serialisable."""
        shares = {
            name: getattr(self, name)
            for name in ("padding_share", "edge_share", "rendered_share", "epochs")
        }
        return dataclasses.asdict(self) | shares

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Accounting":
        """Rebuild from ``to_dict``; the shares are worked out again."""
        names = {f.name for f in dataclasses.fields(cls)}
        known = {k: v for k, v in values.items() if k in names}
        known["dropped"] = [(key, reason) for key, reason in known.get("dropped", [])]
        for name in ("source_samples", "source_tokens", "decoders"):
            known[name] = dict(known.get(name, {}))
        members = known.get("members", {})
        known["members"] = {name: MemberCount(**count) for name, count in members.items()}
        return cls(**known)

    def table(self, num_sources: int = 12) -> str:
        """Return the accounting as lines of text, the ``num_sources`` largest sources named."""
        budget = max(self.tokens + self.padding_tokens, 1)
        whole = max(self.tokens, 1)
        rows = [
            ("steps, packs", f"{self.steps:,}, {self.packs:,}", ""),
            ("videos, images", f"{self.videos:,}, {self.images:,}", f"{self.epochs:.2f} epochs"),
            ("  pieces of long clips", f"{self.pieces:,}", "cut in time; joints are met twice"),
            ("source pixels packed", f"{self.source_pixels:,}", "all of them: no crop, no stretch"),
            ("edge-padding pixels", f"{self.edge_pixels:,}", f"{self.edge_share:.2%} of the grid"),
            ("tokens packed", f"{self.tokens:,}", f"{self.tokens / budget:.2%} of the budget"),
            ("padding tokens", f"{self.padding_tokens:,}", f"{self.padding_share:.2%}"),
            ("  of images", f"{self.image_tokens:,}", f"{self.image_tokens / whole:.2%} of tokens"),
            ("  rendered", f"{self.rendered_tokens:,}", f"{self.rendered_share:.2%} of tokens"),
            ("  real", f"{self.tokens - self.rendered_tokens:,}", f"{1 - self.rendered_share:.2%}"),
        ]
        if self.caption_padding:
            padding = self.caption_padding / (self.caption_rows + self.caption_padding)
            rows.append(("caption rows", f"{self.caption_rows:,}", f"{padding:.2%} padding beside"))
        for name, member in self.members.items():
            passes = member.samples / max(member.samples_in_split, 1)
            share = (
                f"{member.tokens / whole:.2%}, asked {member.asked_share:.2%}, {passes:.2f} passes"
            )
            rows.append((f"  member {name[-30:]}", f"{member.tokens:,}", share))
        ranked = sorted(self.source_tokens.items(), key=lambda item: (-item[1], item[0]))
        for name, count in ranked[:num_sources]:
            share = f"{count / whole:.2%}, {self.source_samples[name]:,} samples"
            rows.append((f"  source {name}"[:40], f"{count:,}", share))
        if len(ranked) > num_sources:
            rest = sum(count for _, count in ranked[num_sources:])
            others = f"  {len(ranked) - num_sources} more sources"
            rows.append((others, f"{rest:,}", f"{rest / whole:.2%}"))
        for name, count in sorted(self.decoders.items()):
            rows.append((f"read by {name}", f"{count:,}", "samples on this rank"))
        rows.append(("dropped", f"{len(self.dropped):,}", "samples on this rank"))
        rows += [(f"  {key}"[:40], "", reason) for key, reason in self.dropped[:20]]
        if len(self.dropped) > 20:
            rows.append((f"  and {len(self.dropped) - 20} more", "", ""))
        return "\n".join(f"{a:<40} {b:>20}  {c}".rstrip() for a, b, c in rows)
