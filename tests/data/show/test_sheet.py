"""The dataset's page shows clips and figures, and takes foreign words for words."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data.config import IngestConfig
from data.ingest.ingest import ingest, main
from data.media.h264 import encode_h264
from data.show.sheet import main as sheet_main
from data.show.sheet import write_sheet

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"'{{ 7*7 }}"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    rng = np.random.default_rng(0)
    for number in range(3):
        frames = np.repeat(rng.integers(0, 255, (17, 9, 16, 3), np.uint8), 8, 1).repeat(8, 2)
        (folder / f"{number}.mp4").write_bytes(encode_h264(frames, 25.0))
    (folder / "0.txt").write_text(HOSTILE)
    Image.fromarray(frames[0, :, :40]).save(folder / "<b onclick=x>.png")
    (folder / "<i>bad.mp4").write_text("no film")
    root = tmp_path_factory.mktemp("sheet") / "out"
    ingest(IngestConfig(input=str(folder), output=str(root)), Console(file=io.StringIO()))
    return write_sheet(root).read_text(encoding="utf-8"), root


def test_foreign_names_and_captions_stay_text(page):
    text, _ = page
    body = text.split("</style>")[1]
    assert "<script" not in body
    assert not re.search(r"<(i|b)[ >]", body.replace("<b>", ""))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in body
    assert "{{ 7*7 }}" in body
    assert "&lt;i&gt;bad.mp4" in body


def test_the_page_is_one_file_without_requests(page):
    text, _ = page
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_thumbnails_have_the_shape_of_their_clips(page):
    text, _ = page
    sizes = re.findall(
        r'<img src="data:image/jpeg;base64,[^"]+" width="(\d+)" height="(\d+)"', text
    )
    assert len(sizes) == 4
    ratios = sorted(int(w) / int(h) for w, h in sizes)
    assert ratios == pytest.approx([40 / 72, 16 / 9, 16 / 9, 16 / 9], rel=0.02)


def test_the_page_is_written_again_on_request(page, capsys):
    _, root = page
    (root / "index.html").unlink()
    assert sheet_main([str(root)]) == 0
    assert (root / "index.html").is_file()
    assert sheet_main([str(root / "nowhere")]) == 2
    assert "manifest.json is missing" in capsys.readouterr().err


def test_ingest_writes_the_page(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    assert main([f"input={tmp_path / 'red.png'}", f"output={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "index.html").is_file()
