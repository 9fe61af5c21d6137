"""Files of every kind: the judge is right, the interface is the judge, and choices follow verdicts.

The files are made by ffmpeg and cached under the system's temporary folder.
"""

import random
import shutil
import struct

import numpy as np
import pytest

from benchmarks import decode as bench
from benchmarks.decode_files import Case, matrix, paint, read_case
from benchmarks.decode_speed import clip_info
from data.decode.check import (
    JUDGED_CLIPS,
    Choices,
    OneChild,
    Outcome,
    Verdict,
    choose,
    compare,
    installed,
)
from data.decode.check import main as check
from data.decode.decoders import decode, decode_by_first
from data.decode.pool import DecodeError, DecoderPool
from data.decode.signature import signature

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg makes the files")

CASES = {case.name: case for case in matrix()}
FAST = [
    "h264, as ingest writes it",
    "h264, B-frames and long GOP",
    "h264, open GOP cut by an edit list",
    "h264, MPEG-TS",
    "h264, interlaced coding",
    "hevc",
    "av1",
    "mpeg4",
    "variable rate, mp4",
    "one frame",
    "rotated 90",
    "rotated 180",
    "72x64",
    "hevc, 10 bit",
    "h264, BT.709",
    "pixels of 4:3",
    "h264, damaged in the middle (0)",
    "cut in half, index lost",
    "cut in half, index first",
    "cut in half, MPEG-TS",
    "no bytes",
    "text",
    "a picture named mp4",
    "random bytes",
    "header claims 444 frames",
]
WRONG_BY_DECORD = {
    "h264, open GOP cut by an edit list": Outcome.differs,
    "h264, MPEG-TS": Outcome.refused,
    "av1": Outcome.refused,
    "72x64": Outcome.refused,
    "hevc, 10 bit": Outcome.colours,
    "h264, damaged in the middle (0)": Outcome.unjudged,
}


@pytest.fixture(scope="module")
def child():
    with OneChild(["decord"], 10.0) as made:
        yield made


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1, 10.0) as made:
        yield made


def payload_of(name: str) -> bytes:
    """Return the bytes of a case; the test is skipped where this ffmpeg cannot make it."""
    try:
        return read_case(CASES[name])
    except RuntimeError as error:
        pytest.skip(str(error))


def check_row(row: bench.Row) -> None:
    """Assert what must hold for every file, whatever the decoders make of it."""
    case, judged = row.case, row.verdicts[0]
    if not case.damaged or case.refused:
        assert judged.outcome == (Outcome.refused if case.refused else Outcome.exact)
    if judged.outcome == Outcome.exact and not case.damaged:
        assert row.num_frames == len(case.shown)
        assert row.psnr >= case.bound
        assert row.in_order
    if judged.outcome == Outcome.exact:
        assert row.interface == "exact"
        assert len(row.readers) == bench.VISITS
    else:
        assert row.interface.startswith("refused: ")
    exact = {verdict.decoder for verdict in row.verdicts if verdict.outcome == Outcome.exact}
    assert set(row.readers) <= exact


@pytest.mark.heavy
@pytest.mark.parametrize("name", FAST)
def test_the_judge_shows_the_film_and_the_interface_shows_what_the_judge_does(name, child, pool):
    payload_of(name)
    row = bench.examine(CASES[name], ["pyav", "decord"], child, pool)
    check_row(row)
    if name in WRONG_BY_DECORD:
        assert row.verdicts[1].outcome == WRONG_BY_DECORD[name]


@pytest.mark.slow
def test_the_whole_matrix_holds_for_every_installed_decoder():
    decoders = installed()
    rows = bench.run_matrix(matrix(), decoders)
    assert len(rows) > 40
    for row in rows:
        check_row(row)
    text = bench.markdown(rows, decoders)
    assert text.count("\n") == len(rows) + 1


@pytest.mark.heavy
def test_files_cut_or_damaged_anywhere_give_the_judges_frames_or_an_error(pool):
    whole, draw = payload_of("h264, B-frames and long GOP"), random.Random(0)
    info = clip_info({"num_frames": 48, "height": 96, "width": 128, "fps": 24.0}, whole)
    pool.submit(info, whole).result()
    before, errors = pool.pids(), 0
    for _ in range(40):
        damaged = bytearray(whole)
        at = draw.randrange(len(whole))
        damaged[at : at + 12] = draw.randbytes(12)
        if draw.random() < 0.5:
            del damaged[at:]
        # The digest is the whole file's, so that the interface believes it has read this before.
        try:
            found = pool.submit(info, bytes(damaged)).result()
        except DecodeError:
            errors += 1
            continue
        reference, _, _ = decode_by_first(bytes(damaged), ["pyav"], (48, 96, 128))
        if found.decoder == "pyav":
            np.testing.assert_array_equal(found.frames, reference)
    assert errors >= 20
    assert pool.pids() == before


def verdicts(*seconds: float, outcome: Outcome = Outcome.exact) -> list[Verdict]:
    """Return the judge's exact verdict, and decord's with the given outcome."""
    judged = Verdict("pyav", Outcome.exact, "", seconds[0], 9)
    return [judged, Verdict("decord", outcome, "", seconds[1], 9)]


def test_the_choice_is_the_fastest_decoder_that_was_exact_on_every_judged_clip():
    assert choose([verdicts(1.0, 0.5)] * JUDGED_CLIPS) == "decord"
    assert choose([verdicts(1.0, 1.05)] * JUDGED_CLIPS) == "decord"  # a tie goes to the default
    assert choose([verdicts(1.0, 1.2)] * JUDGED_CLIPS) == "pyav"
    assert choose([verdicts(1.0, 0.5)] * (JUDGED_CLIPS - 1)) == "pyav"
    for outcome in set(Outcome) - {Outcome.exact}:
        clips = [verdicts(1.0, 0.5)] * (JUDGED_CLIPS - 1)
        assert choose([*clips, verdicts(1.0, 0.5, outcome=outcome)]) == "pyav"


def test_judging_stops_at_its_share_of_the_time():
    choices = Choices()
    assert choices.wants("mp4")
    choices.add("mp4", verdicts(1.0, 1.0), seconds=100.0)
    assert not choices.wants("mp4")
    choices.note_read("a", seconds=5000.0)
    assert choices.wants("mp4")
    assert not choices.wants("")


def test_frames_are_compared_one_by_one():
    film = paint(4, 16, 16)
    assert compare("x", film, film, 1.0).outcome == Outcome.exact
    assert compare("x", film[:3], film, 1.0).outcome == Outcome.differs
    assert compare("x", film[::-1], film, 1.0).outcome == Outcome.differs
    assert compare("x", film + np.uint8(1), film, 1.0).outcome == Outcome.colours
    assert compare("x", film, None, 1.0).outcome == Outcome.unjudged
    one = film.copy()
    one[2] = 255 - one[2]
    found = compare("x", one, film, 1.0)
    assert found.outcome == Outcome.differs
    assert found.reason.startswith("1 of 4 frames")


@pytest.mark.parametrize(
    ("name", "traits"),
    [
        ("h264, as ingest writes it", []),
        ("h264, B-frames and long GOP", ["b-frames"]),
        ("h264, open GOP cut by an edit list", ["b-frames", "edit-list"]),
        ("h264, MPEG-TS", ["b-frames"]),
        ("variable rate, mp4", ["b-frames", "variable-rate"]),
        ("rotated 180", ["b-frames", "rotated-180"]),
        ("pixels of 4:3", ["sar", "b-frames"]),
    ],
)
def test_signatures_tell_what_decoders_stumble_over(name, traits):
    kind = signature(payload_of(name)).split()
    assert kind[0] in ("mp4", "mpegts")
    assert kind[2] == "128x96"
    assert kind[3:] == traits


def test_no_damage_to_an_mp4_header_makes_the_signature_fail_otherwise_than_by_value_error():
    whole, draw = payload_of("h264, open GOP cut by an edit list"), random.Random(1)
    start, readable = whole.index(b"moov"), 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(3):
            at = draw.randrange(start - 4, len(whole) - 4)
            damaged[at : at + 4] = struct.pack(">I", draw.choice([0, 1, 7, 2**31, 2**32 - 1, at]))
        try:
            kind = signature(bytes(damaged))
        except ValueError:
            continue
        readable += 1
        assert kind.startswith("mp4 ")
    assert 0 < readable < 500


def test_the_command_prints_a_verdict_for_each_decoder(tmp_path, capsys):
    path = tmp_path / "clip.mp4"
    path.write_bytes(payload_of("h264, open GOP cut by an edit list"))
    assert check([str(path), "--decoders", "decord"]) == 0
    printed = capsys.readouterr().out
    assert "pyav: exact" in printed
    assert "decord: differs" in printed
    assert check([str(tmp_path / "none.mp4")]) == 2
    assert "none.mp4: does not exist" in capsys.readouterr().err


@pytest.mark.heavy
def test_the_benchmark_prints_a_table_and_updates_a_page(tmp_path, capsys):
    page = tmp_path / "decode.md"
    page.write_text(f"# Decoders\n\n{bench.MARKS[0]}\nold\n{bench.MARKS[1]}\nend\n")
    arguments = ["--only", "no bytes", "--no-speed", "--update", str(page), "--decoders", "pyav"]
    assert bench.main([*arguments, "--json", str(tmp_path / "rows.json")]) == 0
    assert "| no bytes | - | refused" in capsys.readouterr().out
    text = page.read_text()
    assert "| no bytes |" in text
    assert "old" not in text
    assert text.endswith("end\n")
    page.write_text("no marks")
    with pytest.raises(ValueError, match="--update="):
        bench.main(arguments)


def test_painted_films_have_no_two_frames_alike():
    film = paint(48, 96, 128)
    assert bench.in_order(film, film)
    assert Case("film", ".mp4", shown=range(48)).truth.shape == film.shape
    assert not bench.in_order(film[::-1], film)


def test_variable_rates_keep_every_frame_once():
    payload = payload_of("variable rate, mp4")
    film = paint(48, 96, 128)
    for name in ("pyav", "decord"):
        assert bench.in_order(decode(payload, "video", name), film)
