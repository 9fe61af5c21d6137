"""Find where shots begin, frame by frame, and which shots belong to one scene.

Hard cuts come from PySceneDetect's AdaptiveDetector, fades through black from its
ThresholdDetector. Measured on films made of 240 known shots (docs/log.md): 230 of 234 hard cuts and
all 234 fades found, 0 and 4 wrong; of cross-dissolves only 69 of 234, so a clip may still hold one.
"""

from collections import deque
from itertools import accumulate
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

# Pixels of the longer side on which filters are measured; cuts are looked for at half of it, which
# found the same ones in ten real films.
LOOK_SIDE = 128
ANY_RATE = 25.0  # detectors want times, but only frame numbers matter
ADAPTIVE_WINDOW = 2
# Frames darker than this mean value are black between two fades; 8 and more split dark films.
BLACK_LEVEL = 6
# A shot joins an earlier one's scene if their colours correlate this much, at most so far back
# (overlapping links: Hanjalic et al., IEEE Trans. CSVT 9(4), 1999).
SCENE_LOOK_BACK = 4
SCENE_CORRELATION = 0.9
HISTOGRAM_BINS = (12, 4, 4)  # hue, saturation, value

Look = UInt8[np.ndarray, "H W 3"]


class ShotFinder:
    """Watch a film's reduced BGR frames in order and say where shots begin.

    A cut at frame ``n`` means that a new shot starts with frame ``n``. ``threshold`` is how many
    times its neighbours' change a cut must exceed.
    """

    def __init__(self, threshold: float = 3.0) -> None:
        # Costs 0.3 s to import, and only films need it.
        from scenedetect.common import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector, ThresholdDetector

        self.clock = FrameTimecode(0, ANY_RATE)
        self.detectors: list[Any] = [
            AdaptiveDetector(
                adaptive_threshold=threshold, min_scene_len=1, window_width=ADAPTIVE_WINDOW
            ),
            ThresholdDetector(threshold=BLACK_LEVEL, min_scene_len=1, fade_bias=1.0),
        ]
        self.num_frames = 0
        self.starts = [0]
        self.pending: list[int] = []
        self.recent: deque[tuple[int, Look]] = deque(maxlen=2 * ADAPTIVE_WINDOW + 4)
        # The colours of each shot's first and last frame; the last shot's end is not known yet.
        self.ends: list[tuple[np.ndarray, np.ndarray]] = []
        self.opening: np.ndarray | None = None

    def push(self, look: Look, is_cut: bool = False) -> list[int]:
        """Take the next frame; return the cuts that are settled by now, ascending.

        ``is_cut``: a shot begins with it, whatever it looks like.
        """
        from scenedetect.common import FrameTimecode

        now = FrameTimecode(self.num_frames, self.clock)
        height, width = (max(1, side // 2) for side in look.shape[:2])
        half = cv2.resize(look, (width, height), interpolation=cv2.INTER_AREA)
        for detector in self.detectors:
            self.pending += [cut.frame_num for cut in detector.process_frame(now, half)]
        if is_cut:
            self.pending.append(self.num_frames)
        self.recent.append((self.num_frames, look))
        self.num_frames += 1
        if self.opening is None:
            self.opening = colours_of(look)
        return self._release(self.settled)

    @property
    def settled(self) -> int:
        """Frames of which it is known whether a shot begins there."""
        return max(0, self.num_frames - ADAPTIVE_WINDOW)

    def finish(self) -> list[int]:
        """Return the cuts that were still open when the film ended."""
        return self._release(self.num_frames)

    def scenes(self) -> list[int]:
        """Return the scene number of every shot, once the film has ended."""
        if self.opening is None:
            return []
        last = colours_of(self.recent[-1][1])
        return group_scenes([*self.ends, (self.opening, last)])

    def _release(self, before: int) -> list[int]:
        ready = sorted({cut for cut in self.pending if self.starts[-1] < cut < before})
        self.pending = [cut for cut in self.pending if cut >= before]
        looks = dict(self.recent)
        for cut in ready:
            assert self.opening is not None  # a cut comes after a first frame
            self.ends.append((self.opening, colours_of(looks[cut - 1])))
            self.opening = colours_of(looks[cut])
        self.starts += ready
        return ready


def colours_of(look: Look) -> np.ndarray:
    """Return a BGR image's histogram of hue, saturation and value, flat, of sum 1."""
    hsv = cv2.cvtColor(look, cv2.COLOR_BGR2HSV)
    ranges = [0, 180, 0, 256, 0, 256]
    counts = cv2.calcHist([hsv], [0, 1, 2], None, list(HISTOGRAM_BINS), ranges)
    return counts.ravel() / max(1.0, float(counts.sum()))


def group_scenes(ends: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    """Return each shot's scene number from the colours of its first and last frame.

    A shot whose colours are those of one of the ``SCENE_LOOK_BACK`` shots before it (as when a
    dialogue cuts to and fro) belongs to that shot's scene, and so do the shots between.
    """
    first_linked = list(range(len(ends)))  # the earliest shot that each one is linked to
    for shot, own in enumerate(ends):
        for earlier in range(max(0, shot - SCENE_LOOK_BACK), shot):
            alike = max(float(np.corrcoef(a, b)[0, 1]) for a in own for b in ends[earlier])
            if alike >= SCENE_CORRELATION:
                first_linked[shot] = earlier
                break
    scenes, scene = [0] * len(ends), 0
    later = list(accumulate(reversed(first_linked), min))[::-1]  # least link of a shot or any after
    for shot in range(1, len(ends)):
        scene += later[shot] >= shot
        scenes[shot] = scene
    return scenes
