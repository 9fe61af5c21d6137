"""Pictures by Pillow: which formats are opened, how one is shown, which are films.

Only for bytes that are trusted, or inside a child that can be killed. Nothing heavier than numpy is
imported before a picture is opened.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

import numpy as np

# What a file with a picture's suffix may hold. Pillow knows 40 formats more: it hands PostScript to
# the program gs, whatever the file is called. None of these starts a program or opens a file.
PICTURE_FORMATS = (
    *("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"),
    *("AVIF", "JPEG2000", "HEIF"),
)
# HEIF is read by a plugin that is not always installed (the extra heif).
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Of these, a file of several pictures shows them in turn; a JPEG's others are previews.
MOVING_FORMATS = ("PNG", "WEBP", "GIF", "AVIF", "TIFF")
EXIF_ORIENTATION = 0x112
# What browsers show for a frame that asks for no time, or for less than they can show.
LEAST_MILLISECONDS, UNSAID_MILLISECONDS = 11.0, 100.0
# Pages have no times: they are shown at this rate.
PAGES_PER_SECOND = 25.0
# What Pillow's readers raise, beside what any decoder does, where a header's numbers lead astray.
PICTURE_FAILURES = (
    *(OSError, SyntaxError, EOFError, ArithmeticError, LookupError, AttributeError, TypeError),
    struct.error,
)


def open_picture(stream: IO[bytes]) -> Any:
    """Return Pillow's lazy image of a stream that holds one of PICTURE_FORMATS, told by its bytes.

    The one place where pictures are opened. The caller checks the size before it loads pixels.
    Raises ValueError for other formats and where HEIF has no reader, and what Pillow raises for a
    broken header.
    """
    from PIL import Image, UnidentifiedImageError

    head = stream.read(12)
    stream.seek(0)
    is_heif = head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS
    formats = ["AVIF"] if is_heif else [name for name in PICTURE_FORMATS if name != "HEIF"]
    if is_heif:
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener(thumbnails=False)
            formats.append("HEIF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # callers' limits decide
        try:
            return Image.open(stream, formats=formats)
        except UnidentifiedImageError as error:  # its message is the address of the stream
            if is_heif and "HEIF" not in formats:
                raise ValueError("is HEIC, read with: pip install 'kinescale[heif]'") from error
            raise ValueError(f"holds none of {', '.join(PICTURE_FORMATS)}") from error


def shown_picture(image: Any) -> Any:
    """Return a picture of Pillow as RGB: upright, over white where it is transparent.

    16 bits of grey become 8. Raises ValueError where it is not known what its numbers mean.
    """
    from PIL import Image, ImageOps

    is_png = image.format == "PNG"  # whose integers have 16 bits
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and is_png):
        return Image.fromarray((np.asarray(image) / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"has pixels of type {image.mode}")
    if is_transparent(image):
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB")


def is_transparent(image: Any) -> bool:
    """Say whether a picture of Pillow may show what lies under it."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def num_pictures(image: Any) -> int:
    """Return how many pictures a file shows in turn: 1 for a still, and for pages of other sizes.

    Moves the image to its first picture.
    """
    count = int(getattr(image, "n_frames", 1)) if image.format in MOVING_FORMATS else 1
    if image.format == "TIFF" and count > 1:
        size = image.size
        for number in range(1, count):
            image.seek(number)
            if image.size != size:
                count = 1  # a preview, a mask or a smaller copy: the first page is the picture
                break
        image.seek(0)
    if getattr(image, "default_image", False):
        count -= 1  # shown by readers that know no films
    return max(1, count)


def pictures_in_turn(image: Any) -> Iterator[tuple[float, Any]]:
    """Yield (seconds from the start, RGB picture) of a film of pictures, the last one twice.

    The second time is the last moment at which it is shown, a common frame's time before the end.
    """
    first = 1 if getattr(image, "default_image", False) else 0
    milliseconds, times = 0.0, []
    picture = None
    for number in range(first, first + num_pictures(image)):
        image.seek(number)
        picture = shown_picture(image)
        if image.format == "TIFF":
            lasts = 1000 / PAGES_PER_SECOND
        else:
            lasts = float(image.info.get("duration") or 0.0)
            lasts = lasts if lasts >= LEAST_MILLISECONDS else UNSAID_MILLISECONDS
        yield milliseconds / 1000, picture
        milliseconds += lasts
        times.append(lasts)
    usual = float(np.median(times))
    if times[-1] > 1.5 * usual:
        yield (milliseconds - usual) / 1000, picture
