"""Films of high dynamic range as those of standard range: PQ and HLG to BT.709 light of 8 bits.

Light is brought to nits (SMPTE ST 2084; ITU-R BT.2100 for HLG, with its gamma for a display of
1,000 nits), its primaries to those of BT.709, and its brightest channel under the curve of ITU-R
BT.2390 section 5.4 from 1,000 nits to diffuse white, 203 nits (ITU-R BT.2408). All of it is one
table of colours, which FFmpeg's ``lut3d`` applies.
"""

import tempfile
from functools import lru_cache
from pathlib import Path

import av
import av.filter
import numpy as np
from jaxtyping import Float

from data.decode.colour import HLG, PQ

Light = Float[np.ndarray, "... 3"]

WHITE_NITS, PEAK_NITS = 203.0, 1000.0
TABLE_SIDE = 49
# SMPTE ST 2084.
M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
# ITU-R BT.2100 table 5: HLG's curve, its system gamma, the weights of luminance in BT.2020.
HLG_A, HLG_B, HLG_C, HLG_GAMMA = 0.17883277, 0.28466892, 0.55991073, 1.2
LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
# ITU-R BT.2087: linear light of BT.2020 to BT.709.
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)
DISPLAY_GAMMA = 2.4  # ITU-R BT.1886


def nits_of_pq(code: np.ndarray) -> np.ndarray:
    """Return the light of PQ code values in [0, 1], in nits."""
    power = np.clip(code, 0, 1) ** (1 / M2)
    return 10_000 * (np.maximum(power - C1, 0) / (C2 - C3 * power)) ** (1 / M1)


def pq_of_nits(nits: np.ndarray | float) -> np.ndarray:
    """Return the PQ code values of light in nits."""
    power = (np.asarray(nits) / 10_000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def nits_of_hlg(code: Light) -> Light:
    """Return the light of HLG code values in [0, 1] on a display of PEAK_NITS, in nits."""
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - HLG_C) / HLG_A) + HLG_B) / 12)
    luminance = (scene @ LUMINANCE)[..., None]
    return PEAK_NITS * scene * np.maximum(luminance, 1e-9) ** (HLG_GAMMA - 1)


def under_curve(nits: np.ndarray) -> np.ndarray:
    """Bring light of up to PEAK_NITS to at most WHITE_NITS: straight, then a Hermite spline."""
    top = float(pq_of_nits(PEAK_NITS))
    most = float(pq_of_nits(WHITE_NITS)) / top
    knee = 1.5 * most - 0.5
    code = np.minimum(pq_of_nits(nits) / top, 1)
    t = (code - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * most
    )
    return nits_of_pq(np.where(code < knee, code, spline) * top)


def shown_of(code: Light, transfer: int) -> Light:
    """Return the BT.709 code values in [0, 1] that stand for HDR ones (RGB of BT.2020)."""
    nits = nits_of_pq(code) if transfer == PQ else nits_of_hlg(code)
    nits = np.maximum(nits @ TO_BT709.T, 0)
    brightest = nits.max(-1, keepdims=True)
    shown = nits * (under_curve(brightest) / np.maximum(brightest, 1e-9))
    return np.clip(shown / WHITE_NITS, 0, 1) ** (1 / DISPLAY_GAMMA)


@lru_cache(maxsize=2)
def table_of(transfer: int) -> bytes:
    """Return the table of colours of a transfer as a ``.cube`` file; red varies fastest."""
    steps = np.linspace(0, 1, TABLE_SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    values = shown_of(np.stack([red, green, blue], -1).reshape(-1, 3), transfer)
    lines = "\n".join(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in values.tolist())
    return f"LUT_3D_SIZE {TABLE_SIDE}\n{lines}\n".encode()


class ToneMapper:
    """Turns frames of one film, RGB of 16 bits as PQ or HLG, into RGB of 8 bits."""

    def __init__(self, transfer: int) -> None:
        assert transfer in (PQ, HLG)
        self.transfer = transfer
        self.graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame to show for one of ``rgb48le``."""
        if self.graph is None:
            self.graph = self.graph_for(frame)
        self.graph.vpush(frame)
        return self.graph.vpull()

    def graph_for(self, frame: av.VideoFrame) -> av.filter.Graph:
        """Return a graph that applies the table to frames like this one."""
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base,
        )
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.cube"
            table.write_bytes(table_of(self.transfer))
            lut = graph.add("lut3d", f"file={table}:interp=tetrahedral")
            graph.link_nodes(source, lut, graph.add("buffersink"))
            graph.configure()
        return graph
