"""Which changed copies of a clip are found: ``python -m benchmarks.copies ROOT SPLIT``.

Clips of a dataset, each of another source, are letterboxed, mirrored, cropped, begun later, scaled
and made noisy, encoded again and looked for among themselves and all other clips. A pair that is no
clip and its copy, nor two copies of one clip, is false. The fingerprint that ingest always uses
stands beside (at duplicate_bits=8). Prints a table in Markdown.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from data.dataset.shards import read_index, read_payload
from data.decode.decoders import PyAVDecoder
from data.media.copies import copies, looks_from, looks_of
from data.media.fingerprint import fingerprint
from data.media.h264 import encode_h264
from data.media.shots import LOOK_SIDE

Clip = np.ndarray  # (F, H, W, 3)


def letterboxed(clip: Clip) -> Clip:
    """Return a clip between black bars of a sixth of its height each."""
    bar = clip.shape[1] // 6 // 2 * 2
    return np.pad(clip, ((0, 0), (bar, bar), (0, 0), (0, 0)))


def cropped(clip: Clip, share: float = 0.8) -> Clip:
    """Return the middle of a clip, of this share of its sides."""
    _, height, width, _ = clip.shape
    rows, columns = (round(side * (1 - share) / 2) for side in (height, width))
    return clip[:, rows : height - rows, columns : width - columns]


def noisy(clip: Clip) -> Clip:
    """Return a clip at two thirds of its size, with noise of three levels."""
    height, width = (round(side / 3) * 2 for side in clip.shape[1:3])
    small = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in clip])
    return np.clip(small + np.random.default_rng(0).normal(0, 3, small.shape), 0, 255).astype(
        np.uint8
    )


CHANGES: dict[str, Callable[[Clip], Clip]] = {
    "scaled, noisy": noisy,
    "letterboxed": letterboxed,
    "mirrored": lambda clip: clip[:, :, ::-1],
    "cropped to 0.9": lambda clip: cropped(clip, 0.9),
    "cropped to 0.8": cropped,
    "cropped to 0.7": lambda clip: cropped(clip, 0.7),
    "begun a quarter later": lambda clip: clip[len(clip) // 4 :],
    "mirrored, cropped, later": lambda clip: cropped(clip, 0.85)[len(clip) // 4 :, :, ::-1],
}


def greys_of(payload: bytes) -> np.ndarray:
    """Return a clip as ingest measures it."""
    frames = PyAVDecoder().decode(payload)
    scale = min(1.0, LOOK_SIDE / max(frames.shape[1:3]))
    size = tuple(max(2, round(side * scale / 2) * 2) for side in frames.shape[2:0:-1])
    return np.stack([cv2.cvtColor(cv2.resize(f, size), cv2.COLOR_RGB2GRAY) for f in frames])


def again(clip: Clip) -> bytes:
    """Return a clip encoded once more."""
    even = clip[:, : clip.shape[1] // 2 * 2, : clip.shape[2] // 2 * 2]
    return encode_h264(np.ascontiguousarray(even), 24.0, crf=28)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("split")
    parser.add_argument("--copied", type=int, default=24, help="clips that are copied")
    parser.add_argument("--others", type=int, default=200, help="clips beside them")
    options = parser.parse_args(arguments)
    av.logging.set_level(av.logging.PANIC)
    infos = [i for i in read_index(options.root, options.split) if i.media == "video"]
    infos = [infos[place] for place in np.random.default_rng(0).permutation(len(infos))]
    taken: dict[str, tuple[str, bytes]] = {}
    for info in infos:
        if info.source not in taken and len(taken) < options.copied:
            taken[info.source] = info.key, read_payload(options.root, options.split, info)
    payloads = [("whole", source, payload) for source, (_, payload) in taken.items()]
    for name, change in CHANGES.items():
        for source, (_, payload) in taken.items():
            payloads.append((name, source, again(change(PyAVDecoder().decode(payload)))))
    others = [i for i in infos if i.source not in taken][: options.others]
    payloads += [("other", i.source, read_payload(options.root, options.split, i)) for i in others]
    greys = [greys_of(io.BytesIO(payload).getvalue()) for _, _, payload in payloads]
    looks = [looks_from(looks_of(grey, 24.0)) for grey in greys]
    prints = [int(fingerprint(grey), 16) for grey in greys]
    begun = time.process_time()
    found = copies(looks, [f"{place}" for place in range(len(looks))])
    seconds = time.process_time() - begun
    print("| copy | found | by the fingerprint alone |\n|---|---|---|")
    for name in CHANGES:
        by_views = by_print = count = 0
        for place, (change, source, _) in enumerate(payloads):
            if change != name:
                continue
            whole = next(p for p, (c, s, _) in enumerate(payloads) if (c, s) == ("whole", source))
            count += 1
            by_views += any(copy.other == whole for copy in found.get(place, []))
            by_print += (prints[place] ^ prints[whole]).bit_count() / 6 <= 8
        print(f"| {name} | {by_views} of {count} | {by_print} of {count} |")
    false = {
        (min(a, copy.other), max(a, copy.other))
        for a, some in found.items()
        for copy in some
        if payloads[a][1] != payloads[copy.other][1]
    }
    between = sum(
        (prints[a] ^ prints[b]).bit_count() / 6 <= 8
        for a in range(len(prints))
        for b in range(a)
        if payloads[a][1] != payloads[b][1]
    )
    print(f"| false: pairs of other sources, {len(looks)} clips | {len(false)} | {between} |")
    print(f"\n{seconds:.1f} s of one processor for {len(looks)} clips.")
    for a, b in sorted(false)[:20]:
        print("false:", payloads[a][:2], payloads[b][:2])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
