"""Real video files of known content, made on the spot: what the decoders are judged on.

Each file shows a painted film whose every frame is known, so that the judge (PyAV, sequential) is
itself judged: each decoded frame must be nearer to its own painted frame than to any other, and
within a PSNR bound that depends on the codec. Files are cached under the system's temporary folder.
"""

import hashlib
import random
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Change = Callable[[bytes], bytes]
FPS = 24
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "12", "-pix_fmt", "yuv420p")
VP9 = ("-c:v", "libvpx-vp9", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8",
       "-pix_fmt", "yuv420p")  # fmt: skip
HEVC = ("-c:v", "libx265", "-crf", "14", "-preset", "superfast", "-x265-params", "log-level=none",
        "-pix_fmt", "yuv420p", "-tag:v", "hvc1")  # fmt: skip
VP8 = ("-c:v", "libvpx", "-b:v", "4M", "-auto-alt-ref", "1", "-deadline", "realtime")
AV1 = ("-c:v", "libsvtav1", "-preset", "10", "-crf", "20", "-pix_fmt", "yuv420p")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2")
MJPEG = ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")
NORMALISED = ("-bf", "0", "-x264-params", "keyint=99:scenecut=0", "-use_editlist", "0")
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)


@dataclass(frozen=True)
class Case:
    """One file of the matrix.

    name: what it is, also its file name; ``suffix`` is the container's.
    options: what ffmpeg is given between the painted frames and the output file.
    shape: painted (frames, height, width).
    change: what happens to the encoded bytes afterwards; ``then`` to the file, by ffmpeg once more.
    shown: painted frames the file should show, in order; of a damaged file, before it was.
    turn: quarter turns counter-clockwise that a viewer applies (``-c copy`` turns the tag's sense).
    bound: least PSNR in dB against the painted frames, for what is not damaged.
    damaged: the bytes were damaged on purpose.
    refused: nobody should read it.
    """

    name: str
    suffix: str
    options: tuple[str, ...] = ()
    shape: tuple[int, int, int] = (48, 96, 128)
    then: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    change: Change | None = field(default=None, compare=False)
    shown: range | None = None
    turn: int = 0
    bound: float = 30.0
    damaged: bool = False
    refused: bool = False

    @property
    def truth(self) -> NDArray[np.uint8] | None:
        """Painted frames as a viewer should see them (F, H, W, 3), or None."""
        if self.shown is None:
            return None
        return np.rot90(paint(*self.shape)[list(self.shown)], self.turn, axes=(1, 2))


def paint(num_frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return a smooth film (F, H, W, 3) of moving waves, no two frames of which are alike."""
    f, h, w = np.meshgrid(*map(np.arange, (num_frames, height, width)), indexing="ij")
    waves = [
        np.sin((w + 5 * f) / 17) + np.cos((h - 3 * f) / 13),
        np.sin((w + h - 4 * f) / 29) + np.cos((2 * h + 7 * f) / 31),
        np.cos((w - h + 6 * f) / 23) + np.sin((w + 2 * f) / 37),
    ]
    return np.stack([(127.5 + 55 * wave).astype(np.uint8) for wave in waves], -1)


def whole(name: str, suffix: str, *options: str, **more: object) -> Case:
    """Return a case that shows all of its painted frames."""
    shape = more.get("shape", (48, 96, 128))
    return Case(name, suffix, options, shown=range(shape[0]), **more)  # type: ignore[index,arg-type]


def flipped(seed: int, spans: int = 3) -> Change:
    """Return a change that overwrites a few spans of the middle half with random bytes."""

    def change(data: bytes) -> bytes:
        draw, damaged = random.Random(seed), bytearray(data)
        for _ in range(spans):
            at = draw.randrange(len(data) // 4, 3 * len(data) // 4)
            damaged[at : at + 16] = draw.randbytes(16)
        return bytes(damaged)

    return change


def lying(data: bytes) -> bytes:
    """Make the two frame counts in an AVI header claim 444 frames, and hide its index."""
    changed = bytearray(data)
    struct.pack_into("<I", changed, data.index(b"avih") + 8 + 16, 444)
    struct.pack_into("<I", changed, data.index(b"strh") + 8 + 32, 444)
    at = data.index(b"idx1")
    changed[at : at + 4] = b"JUNK"
    return bytes(changed)


def matrix() -> list[Case]:
    """Return every case, healthy ones first."""
    return [*healthy(), *odd(), *damaged()]


def healthy() -> list[Case]:
    """Return one case for each codec, container and structure that clips come in."""
    long_gop = ("-bf", "3", "-x264-params", "keyint=250:scenecut=0:b-pyramid=normal")
    open_gop = ("-bf", "3", "-x264-params", "keyint=12:open-gop=1:scenecut=0")
    vfr = ("-vf", "setpts='(N+floor(N/3)*2)/24/TB'", "-fps_mode", "vfr", "-enc_time_base", "1:1000")
    return [
        whole("h264, as ingest writes it", ".mp4", *X264, *NORMALISED),
        whole("h264, B-frames and long GOP", ".mp4", *X264, *long_gop),
        whole("h264, all intra", ".mp4", *X264, "-g", "1"),
        whole("h264, open GOP", ".mp4", *X264, *open_gop),
        Case(
            "h264, open GOP cut by an edit list",
            ".mp4",
            (*X264, *open_gop),
            before=("-ss", "0.75"),
            then=("-c", "copy"),
            shown=range(18, 48),
        ),
        whole("h264, MPEG-TS", ".ts", *X264, *long_gop),
        whole("h264, mkv", ".mkv", *X264, *long_gop),
        whole("h264, fragmented mp4", ".mp4", *X264, "-movflags", "frag_keyframe+empty_moov"),
        whole("h264, interlaced coding", ".mp4", *X264, "-flags", "+ildct+ilme"),
        whole("hevc", ".mp4", *HEVC),
        whole("vp8", ".webm", *VP8),
        whole("vp9", ".webm", *VP9),
        whole("av1", ".mp4", *AV1),
        whole("mpeg4", ".avi", "-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
        whole("mpeg2", ".mpg", *MPEG2),
        whole("mjpeg", ".avi", *MJPEG),
        whole("ffv1, lossless RGB", ".mkv", "-c:v", "ffv1", "-pix_fmt", "bgr0", bound=60),
        whole("variable rate, mp4", ".mp4", *vfr, *X264, "-bf", "2"),
        whole("variable rate, webm", ".webm", *vfr, *VP9),
        whole("h264 with sound", ".mp4", *X264, before=("sound",)),
        whole("one frame", ".mp4", *X264, shape=(1, 96, 128)),
    ]  # fmt: skip


def odd() -> list[Case]:
    """Return cases of unusual sizes, colours and geometry."""
    copy = ("-c", "copy", "-metadata:s:v")
    return [
        *(whole(f"rotated {r}", ".mp4", *X264, then=(*copy, f"rotate={r}"), turn=r // 90)
          for r in (90, 180, 270)),
        *(whole(f"{w}x{h}", ".mp4", *X264, "-bf", "0", shape=(12, h, w))
          for h, w in ((64, 72), (64, 48), (64, 16), (66, 50), (426, 240))),
        whole("odd sides 127x95 (4:4:4)", ".mp4", *X264[:-1], "yuv444p", shape=(12, 95, 127)),
        whole("odd sides 127x95 (vp9)", ".webm", *VP9, shape=(12, 95, 127)),
        whole("h264, 10 bit", ".mp4", *X264[:-1], "yuv420p10le"),
        whole("hevc, 10 bit", ".mp4", "-c:v", "libx265", "-crf", "14", "-preset", "superfast",
              "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le"),
        whole("h264, 4:4:4", ".mp4", *X264[:-1], "yuv444p"),
        whole("h264, full range", ".mp4", "-vf", "scale=out_range=full", *X264[:-1], "yuvj420p",
              "-color_range", "pc"),
        whole("h264, BT.709", ".mp4", "-vf", "scale=out_color_matrix=bt709", *X264,
              "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
        whole("h264, 1280 columns of BT.709 that do not say so", ".mp4", "-vf",
              "scale=out_color_matrix=bt709", *X264, "-bf", "0", shape=(12, 64, 1280)),
        whole("pixels of 4:3", ".mp4", "-vf", "setsar=4/3", *X264, refused=True),
    ]  # fmt: skip


def damaged() -> list[Case]:
    """Return cases that are broken, or no video at all."""
    start = (*X264, "-movflags", "+faststart")
    half: Change = lambda data: data[: len(data) // 2]  # noqa: E731
    flips = [
        whole(f"{name}, damaged in the middle ({seed})", suffix, *options, change=flipped(seed))
        for seed in range(3)
        for name, suffix, options in (
            ("h264", ".mp4", start),
            ("vp9", ".webm", VP9),
            ("hevc", ".mp4", (*HEVC, "-movflags", "+faststart")),
            ("vp8", ".webm", VP8),
            ("av1", ".mp4", (*AV1, "-movflags", "+faststart")),
            ("mpeg2", ".mpg", MPEG2),
            ("mjpeg", ".avi", MJPEG),
        )
    ]
    broken = [
        whole("cut in half, index lost", ".mp4", *X264, change=half),
        whole("cut in half, index first", ".mp4", *start, change=half),
        whole("cut in half, MPEG-TS", ".ts", *X264, change=half),
        Case("no bytes", ".mp4", change=lambda _: b""),
        Case("text", ".mp4", change=lambda _: b"#!/bin/sh\necho this is not a video\n" * 9),
        Case("a picture named mp4", ".mp4", change=lambda _: PNG),
        Case("random bytes", ".mp4", change=lambda _: random.Random(0).randbytes(20_000)),
    ]
    lies = whole("header claims 444 frames", ".avi", "-c:v", "mpeg4", "-q:v", "2", change=lying)
    return [
        *(replace(case, damaged=True) for case in flips),
        *(replace(case, damaged=True, refused=True) for case in broken),
        lies,
    ]


def cache_folder() -> Path:
    """Return the folder of the files that this version of this module makes."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"kinescale-decode-{version}"
    folder.mkdir(exist_ok=True)
    return folder


def read_case(case: Case, folder: Path | None = None) -> bytes:
    """Return the bytes of a case, made by ffmpeg if they are not in the cache yet.

    Raises RuntimeError with ffmpeg's own words where this ffmpeg lacks the encoder.
    """
    name = "".join(c if c.isalnum() else "-" for c in case.name) + case.suffix
    path = (folder or cache_folder()) / name
    if not path.exists():
        data = make(case, path.with_name(f"making-{name}"))
        path.with_name(f"part-{name}").write_bytes(data)
        path.with_name(f"part-{name}").replace(path)
    return path.read_bytes()


def make(case: Case, scratch: Path) -> bytes:
    """Encode a case's painted film and change the result as it says."""
    data = b""
    if case.options:
        num_frames, height, width = case.shape
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(FPS)]
        sound = ["-f", "lavfi", "-t", str(num_frames / FPS), "-i", "sine=440"]
        inputs = [*raw, "-i", "pipe:0", *(sound if case.before == ("sound",) else [])]
        ffmpeg([*inputs, *case.options, str(scratch)], paint(*case.shape).tobytes())
        if case.then:
            again = scratch.with_name(f"again-{scratch.name}")
            ffmpeg([*case.before, "-i", str(scratch), *case.then, str(again)])
            again.replace(scratch)
        data = scratch.read_bytes()
        scratch.unlink()
    return case.change(data) if case.change else data


def ffmpeg(arguments: list[str], stdin: bytes = b"") -> None:
    """Run ffmpeg on one thread. Raises RuntimeError with its last line."""
    command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", "-threads", "1", *arguments]
    if stdin:
        command.remove("-nostdin")
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
        raise RuntimeError(f"ffmpeg: {lines[-1]}")
