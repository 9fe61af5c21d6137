"""What kind of file a payload is: the traits on which decoders have been seen to differ.

Two clips of one signature are taken to be read alike by a decoder, so that not every file needs to
be judged (data/decode/check.py). MP4 is read here from its boxes, in a tenth of a millisecond where
opening it takes FFmpeg one to forty, because every clip of a training step passes through; other
containers are opened by PyAV, and so only inside a child.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from data.decode.decoders import open_by_pyav

# Boxes that hold boxes, on the way to what is looked for.
PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
CONFIGURATIONS = (b"avcC", b"hvcC", b"vpcC", b"av1C", b"esds")
# A box's own header, and the fixed fields of a video sample entry before its boxes.
BOX_BYTES, VIDEO_ENTRY_BYTES = 8, 78
QUARTER_TURNS = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}
# Frame gaps that differ by more than this share make a rate variable (clocks of 1 ms jitter).
RATE_TOLERANCE = 0.5


def signature(payload: bytes) -> str:
    """Return container, codec, size and structure: ``mp4 avc1:64:1b2c3d4e 640x360 edit-list``.

    Raises ValueError where the bytes are no readable video.
    """
    if payload[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        try:
            return signature_of_mp4(payload)
        except (struct.error, LookupError, OverflowError, RecursionError) as error:
            raise ValueError(f"has damaged boxes: {error}") from error
    return signature_by_pyav(payload)


def boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, content) of the ISO base media boxes in ``data``, ISO/IEC 14496-12 section 4."""
    at = 0
    while at + BOX_BYTES <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = BOX_BYTES
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + BOX_BYTES)
            header += 8
        end = at + size if size else len(data)
        if size and size < header:
            raise ValueError("has damaged boxes")
        yield kind, data[at + header : end]
        at = end


def collect(data: memoryview, found: dict[bytes, memoryview]) -> None:
    """Gather the boxes below ``data``; of several of one type, the first."""
    for kind, content in boxes(data):
        if kind in PARENTS:
            collect(content, found)
        found.setdefault(kind, content)


def signature_of_mp4(payload: bytes) -> str:
    """Return the signature of an MP4 or MOV file from the boxes of its first video track."""
    top: dict[bytes, memoryview] = {}
    for kind, content in boxes(memoryview(payload)):
        top.setdefault(kind, content)
    if b"moov" not in top:
        raise ValueError("has lost its index (no moov box)")
    for kind, content in boxes(top[b"moov"]):
        track: dict[bytes, memoryview] = {}
        if kind == b"trak":
            collect(content, track)
        if bytes(track.get(b"hdlr", b""))[8:12] == b"vide":
            break
    else:
        raise ValueError("holds no video stream")
    traits = ["mp4", codec_of(track[b"stsd"])]
    traits += ["fragments"] if b"moof" in top else []
    traits += ["b-frames"] if b"ctts" in track else []
    traits += ["all-intra"] if b"stss" not in track and b"moof" not in top else []
    traits += ["variable-rate"] if varies(table(track.get(b"stts"), ">II")) else []
    traits += edits_of(track)
    turn = turn_of(track[b"tkhd"])
    return " ".join(traits + ([f"rotated-{turn}"] if turn else []))


def codec_of(stsd: memoryview) -> str:
    """Return ``fourcc:profile:checksum WxH`` of the codec's configuration, and ``sar``.

    The configuration holds what decides how frames are read: profile, chroma, depth, interlacing.
    """
    entry = stsd[BOX_BYTES:]
    size, fourcc = struct.unpack_from(">I4s", entry)
    inner: dict[bytes, memoryview] = {}
    collect(entry[BOX_BYTES + VIDEO_ENTRY_BYTES : size], inner)
    found = [inner[kind] for kind in CONFIGURATIONS if kind in inner]
    width, height = struct.unpack_from(">HH", entry, 32)
    square = b"pasp" not in inner or len(set(struct.unpack_from(">II", inner[b"pasp"]))) == 1
    detail = f":{bytes(found[0][1:2]).hex()}:{zlib.crc32(found[0]):08x}" if found else ""
    return f"{fourcc.decode('latin-1')}{detail} {width}x{height}" + ("" if square else " sar")


def table(box: memoryview | None, layout: str) -> list[tuple[int, ...]]:
    """Return the rows of a full box that holds a count and a table."""
    if box is None:
        return []
    (count,) = struct.unpack_from(">I", box, 4)
    step = struct.calcsize(layout)
    return list(struct.iter_unpack(layout, box[8 : 8 + count * step]))


def varies(stts: Sequence[tuple[int, ...]]) -> bool:
    """Say whether frame durations, but the last one's, differ by more than clocks' jitter."""
    # The last frame has no successor, so muxers put there what they like.
    rows = stts[:-1] if stts and stts[-1][0] == 1 else stts
    gaps = [gap for _, gap in rows]
    return bool(gaps) and max(gaps) - min(gaps) > RATE_TOLERANCE * max(min(gaps), 1)


def edits_of(track: dict[bytes, memoryview]) -> list[str]:
    """Return ``edit-list`` where one hides frames or moves them, ISO/IEC 14496-12 section 8.6.6."""
    if b"elst" not in track:
        return []
    wide = track[b"elst"][0] == 1
    edits = table(track[b"elst"], ">Qqi" if wide else ">Iii")
    offsets = table(track.get(b"ctts"), ">Ii")
    # Encoders with B-frames start at the first frame's own offset, which hides nothing.
    first = offsets[0][1] if offsets else 0
    return [] if len(edits) == 1 and edits[0][1] == first else ["edit-list"]


def turn_of(tkhd: memoryview) -> int | str:
    """Return the clockwise rotation of a track's matrix in degrees, or ``skewed``."""
    start = 52 if tkhd[0] == 1 else 40
    a, b, _, c, d = struct.unpack_from(">5i", tkhd, start)
    return QUARTER_TURNS.get((a >> 16, b >> 16, c >> 16, d >> 16), "skewed")


def signature_by_pyav(payload: bytes) -> str:
    """Return the signature of any container, from its streams and its packets' times."""
    import av

    try:
        with open_by_pyav(payload) as container:
            if not container.streams.video:
                raise ValueError("holds no video stream")
            stream = container.streams.video[0]
            context = stream.codec_context
            checksum = zlib.crc32(context.extradata or b"")
            codec = f"{context.name}:{context.profile}:{context.pix_fmt}:{checksum:08x}"
            name = container.format.name.split(",")[0]
            traits = [name, codec, f"{context.width}x{context.height}"]
            traits += ["b-frames"] if context.has_b_frames else []
            traits += ["sar"] if stream.sample_aspect_ratio not in (None, 0, 1) else []
            packets = [packet for packet in container.demux(stream) if packet.size]
    except av.FFmpegError as error:
        raise ValueError(f"{type(error).__name__}: {error.strerror}") from error
    return " ".join(traits + traits_of_packets(packets))


def traits_of_packets(packets: list[Any]) -> list[str]:
    """Return what times and flags of packets tell about rate and start."""
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    gaps = [(1, after - before) for before, after in pairwise(times)]
    traits = ["variable-rate"] if varies(gaps) else []
    traits += ["no-times"] if len(times) < len(packets) else []
    traits += ["starts-late"] if packets and not packets[0].is_keyframe else []
    return traits + (["all-intra"] if all(packet.is_keyframe for packet in packets) else [])
