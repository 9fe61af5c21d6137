"""A film is given up where it stands still, not for its length, and cut where it shows nothing."""

import os
import time
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from data.config import IngestConfig
from data.engine.children import collect
from data.engine.drafts import Draft, Pulse, build_draft, last_pulse, read_draft
from data.engine.source import Notes
from data.ingest.ingest import main
from data.ingest.media_file import MediaFile
from data.media.probe import constant_rate
from tests.data.ingest.test_forms import film, sliding


def media(path, **values):
    return MediaFile(path.name, "train", path, nbytes=path.stat().st_size, **values)


@pytest.mark.parametrize(("pulse", "dead"), [(5, False), (11, True), (10**9, True)])
def test_a_job_is_given_up_by_the_time_since_it_last_showed_something(pulse, dead):
    child = SimpleNamespace(job="film", started=time.monotonic() - 100)
    found = collect(child, False, 10.0, lambda job: time.time() - pulse)
    assert (found is not None and "timeout_seconds=10" in found.death) == dead


def test_a_job_that_has_just_begun_has_its_time(tmp_path):
    """What an earlier attempt left of the same film is old."""
    child = SimpleNamespace(job="film", started=time.monotonic() - 1)
    assert collect(child, False, 10.0, lambda job: 0.0) is None


def test_each_frame_that_is_read_shows_that_a_film_goes_on(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(film(1, num_frames=21))
    shown = []
    notes = Notes(on_frame=lambda: shown.append(1))
    list(media(path).samples(IngestConfig(), notes))
    assert len(shown) == 21


def test_a_pulse_is_the_time_of_the_file_that_a_draft_grows_in(tmp_path, monkeypatch):
    monkeypatch.setattr("data.engine.drafts.PULSE_SECONDS", 0.0)
    draft = Draft(tmp_path, SimpleNamespace(name="film"), "film", IngestConfig())
    assert last_pulse(draft) == 0.0
    growing = draft.stem.with_suffix(".tmp")
    growing.touch()
    os.utime(growing, (1000, 1000))
    assert last_pulse(draft) == 1000.0
    Pulse(growing)()
    assert last_pulse(draft) == pytest.approx(time.time(), abs=60)


def with_hole(path, frames, before, seconds):
    """Write frames at 24 a second, of which nothing is shown for a while after so many."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = number + (24 * seconds if number >= before else 0)
            frame.time_base = Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.heavy
@pytest.mark.parametrize("shots", ["split", "keep", "none"])
def test_a_hole_of_two_minutes_parts_clips_and_is_filled_with_nothing(tmp_path, shots):
    with_hole(tmp_path / "a.mp4", sliding(1, 40), 20, 120)
    draft = Draft(tmp_path, media(tmp_path / "a.mp4"), "a", IngestConfig(shots=shots))
    assert build_draft(draft) == 2
    _, lines = read_draft(draft)
    told = [line["meta"]["original"] for line in lines]
    assert [line["meta"]["num_frames"] for line in lines] == [17, 17]
    assert [t["start_frame"] for t in told] == [0, 20]
    assert [t["start_seconds"] for t in told] == pytest.approx([0.0, 20 / 24 + 120], abs=0.01)
    assert told[0]["num_frames"] == 40


def test_a_hole_is_no_part_of_a_films_time_and_a_slow_film_has_none():
    times = [i / 24 for i in range(24)] + [121 + i / 24 for i in range(24)]
    fps, timeline = constant_rate(times, 24.0)
    assert fps == pytest.approx(24.0)
    assert timeline == tuple(range(48))
    slow = [5.0 * i for i in range(9)] + [41.0]
    assert len(constant_rate(slow, 0.2)[1]) >= 9


def test_a_url_is_refused_where_a_folder_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    assert main([f"input={tmp_path}/in", "output=s3://bucket/set"]) == 2
    assert "output=s3://bucket/set: is a URL" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
