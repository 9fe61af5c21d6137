"""Captions of many clips in one file, in the layouts that people own, reach the clips they mean."""

import io
import json
import sys
import tarfile

import numpy as np
import pytest
from rich.console import Console

from data.config import small_clips
from data.dataset.shards import read_index
from data.engine.source import Notes
from data.ingest.ingest import find_sources, ingest
from data.ingest.layouts import LAYOUTS, plain
from tests.data.conftest import add
from tests.data.ingest.test_ingest import decode, write_video


def folder(tmp_path, films=("000.mp4", "001.mp4", "002.mp4"), **files):
    """Make a folder of films (which these tests need not decode) and of text files."""
    root = tmp_path / "in"
    for name in films:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"film")
    for name, text in files.items():
        put(root, name, text)
    return root


def put(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def sources(root, **values):
    """Return what each film is told, by its name in the input, and reasons by file."""
    notes = Notes()
    found = find_sources(small_clips(input=str(root), **values), notes)
    return {f.name: f for f in found}, {r["file"]: r["reason"] for r in notes.rejects}


def captions(root, **values):
    return {name: file.caption for name, file in sources(root, **values)[0].items()}


def csv_of(columns, *rows):
    return "".join(",".join(map(str, row)) + "\n" for row in (columns.split(","), *rows))


THREE = {f"00{i}.mp4": f"caption {i}" for i in range(3)}
BARE = {name[:3]: words for name, words in THREE.items()}
FAR = {f"/elsewhere/films/{name}": words for name, words in THREE.items()}
WEB = {f"https://x.org/a%20b/{name}?x=1": words for name, words in THREE.items()}


def objects(path, caption):
    return [{path: name, caption: words} for name, words in THREE.items()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", csv_of("file_name,text", *THREE.items())),
        ("bom.csv", "\ufeff" + csv_of("file_name,caption", *THREE.items()).replace(",", ";")),
        ("metadata.jsonl", "\n\n".join(map(json.dumps, objects("file_name", "text")))),
        ("meta.csv", csv_of("path,text,fps", *[(*row, 24) for row in FAR.items()])),
        ("anno.json", json.dumps(objects("path", "cap"))),
        ("metadata.csv", csv_of("video,prompt", *THREE.items())),
        ("dataset.csv", csv_of("video_file,caption,x", *[(*row, 1) for row in THREE.items()])),
        ("OpenVid-1M.csv", csv_of("video,caption,fps", *[(*row, 24) for row in THREE.items()])),
        ("koala.csv", csv_of("videoID,caption,url", *[(*row, "x") for row in BARE.items()])),
        ("urls.csv", csv_of("url,caption", *WEB.items())),
        ("map.json", json.dumps({name: {"caption": words} for name, words in THREE.items()})),
        ("all.json", json.dumps({"version": 1, "data": objects("video_path", "caption")})),
        ("sub/train.tsv", csv_of("Video_ID,Caption", *BARE.items()).replace(",", "\t")),
    ],
)
def test_a_table_of_a_known_layout_tells_each_film_its_caption(tmp_path, name, text):
    root = folder(tmp_path)
    put(root, name, text)
    assert captions(root) == THREE


def test_lines_of_a_list_of_prompts_belong_to_lines_of_a_list_of_films(tmp_path):
    films = ["videos/b.mp4", "videos/a.mp4", "videos/c.mp4"]
    for words, paths in (("prompt.txt", "videos.txt"), ("captions.txt", "video.txt")):
        root = folder(tmp_path / words, films)
        put(root, words, "first\n\nthird\n")
        put(root, paths, "\n".join(films))
        found = captions(root)
        assert found == {"videos/b.mp4": "first", "videos/a.mp4": "", "videos/c.mp4": "third"}
    put(root, "captions.txt", "first\nsecond\n")
    with pytest.raises(ValueError, match=r"has 2 lines, video.txt 3"):
        sources(root)


def test_texts_in_a_folder_beside_that_of_the_films_are_their_captions(tmp_path):
    root = folder(tmp_path, ["train/videos/a.mp4", "train/videos/b.mp4", "train/t5_xxl/a.pickle"])
    for name in ("a", "b", "lost"):
        put(root, f"train/metas/{name}.txt", f"caption {name}")
    found, reasons = sources(root)
    del found["train/t5_xxl/a.pickle"]
    assert {n: f.caption for n, f in found.items()} == {
        "train/videos/a.mp4": "caption a",
        "train/videos/b.mp4": "caption b",
    }
    assert reasons == {"lost": "is named by train/metas/*.txt and does not lie here"}


def test_a_table_of_unknown_layout_is_asked_about(tmp_path):
    root = folder(tmp_path)
    put(root, "list.csv", csv_of("id,words,clip", *[(9, c, f) for f, c in THREE.items()]))
    with pytest.raises(ValueError) as error:
        sources(root)
    assert str(error.value) == (
        "captions=list.csv: its columns (id, words, clip) are no layout that is known. It lies "
        "beside films without a caption: say captions=list.csv caption_column=NAME "
        "path_column=NAME, or captions=none to do without."
    )
    said = {"captions": "list.csv", "caption_column": "words", "path_column": "clip"}
    assert captions(root, **said) == THREE
    assert captions(root, **said | {"captions": str(root / "list.csv")}) == THREE
    assert captions(root, captions="none") == dict.fromkeys(THREE, "")
    with pytest.raises(
        ValueError, match=r"caption_column=word: .* Did you mean words\? Its columns"
    ):
        sources(root, **said | {"caption_column": "word"})
    with pytest.raises(ValueError, match=r"captions=lost.csv: .*\(list.csv\)"):
        sources(root, captions="lost.csv")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("metadata.csv", "file_name,text\n000.mp4,one, two\n", "line 2 has 3 cells, the header 2"),
        ("metadata.csv", "file_name,text,text\n000.mp4,a,b\n", "its column text is there twice"),
        ("metadata.csv", "000.mp4,a caption\n", "(000.mp4, a caption)|none"),
        ("metadata.jsonl", '{"file_name": "000.mp4"\n', "line 1 is no JSON"),
        ("notes.json", '{"a": [1], "b": [2]}', "its columns (a, b)"),
        ("notes.json", "[1, 2]", "it is no list of objects"),
        ("broken.json", "{", "cannot be read"),
        ("empty.csv", "", "its columns (none)"),
    ],
)
def test_a_table_that_cannot_be_read_tells_no_film_a_template(tmp_path, name, text, why):
    root = folder(tmp_path)
    put(root, name, text)
    with pytest.raises(ValueError) as error:
        sources(root)
    assert any(part in str(error.value) for part in why.split("|"))
    assert "captions=none" in str(error.value)
    for film in THREE:  # where every film has words of its own, it costs itself alone
        put(root, film.replace(".mp4", ".txt"), "own words")
    found, reasons = sources(root)
    assert {file.caption for file in found.values()} == {"own words"}
    assert list(reasons) == [name]


def test_films_that_no_row_names_and_rows_without_a_film_are_listed(tmp_path):
    root = folder(tmp_path)
    rows = [
        ("000.mp4", "a"),
        ("lost.mp4", "b"),
        ("../../../etc/hostname", "c"),
        ("/etc/hostname", "d"),
    ]
    put(root, "metadata.csv", csv_of("file_name,text", *rows))
    put(root, "002.txt", "own words")
    found, reasons = sources(root)
    told = {name: file.caption for name, file in found.items()}
    assert told == {"000.mp4": "a", "002.mp4": "own words"}
    missing = "is named by metadata.csv and does not lie here"
    assert reasons == {name: missing for name, _ in rows[1:]} | {
        "001.mp4": "is not named by metadata.csv"
    }


def test_a_name_that_several_films_have_is_given_to_none(tmp_path):
    films = ["a/000.mp4", "b/000.mp4", "c/001.mp4", "c/001.jpg"]
    root = folder(tmp_path, films)
    put(root, "m.csv", csv_of("video_id,caption", ("000", "x"), ("001", "y")))
    found, reasons = sources(root)
    assert {name: file.caption for name, file in found.items()} == {"c/001.mp4": "y"}
    assert reasons["000 (m.csv)"] == "may mean a/000.mp4 or b/000.mp4"


def test_paths_of_another_machine_that_end_alike_are_given_to_none(tmp_path):
    root = folder(tmp_path)
    rows = [("/data/a/000.mp4", "x"), ("/data/b/000.mp4", "y"), ("/data/a/001.mp4", "z")]
    put(root, "meta.csv", csv_of("path,text", *rows))
    found, reasons = sources(root)
    assert {name: file.caption for name, file in found.items()} == {"001.mp4": "z"}
    assert "end alike" in reasons["/data/b/000.mp4 (meta.csv)"]


def test_tables_in_folders_and_tars_speak_of_their_own_films(tmp_path):
    root = folder(tmp_path, ["train/a.mp4", "test/a.mp4"])
    put(root, "train/metadata.csv", csv_of("file_name,text", ("a.mp4", "of train")))
    put(root, "test/metadata.csv", csv_of("file_name,text", ("./a.mp4", "of test")))
    with tarfile.open(root / "more.tar", "w") as tar:
        add(tar, "a.mp4", b"film")
        add(tar, "metadata.csv", csv_of("file_name,text", ("a.mp4", "of the tar")).encode())
    assert captions(root) == {
        "train/a.mp4": "of train",
        "test/a.mp4": "of test",
        "more.tar/a.mp4": "of the tar",
    }


def test_all_that_a_row_says_travels_along_and_may_choose(tmp_path):
    root = folder(tmp_path)
    rows = [("000.mp4", "a", 5.5, "", "cc0"), ("001.mp4", "b", 3, 7, "cc0")]
    rows.append(("002.mp4", "c", 6.0, "x", "by"))
    put(root, "meta.csv", csv_of("path,text,aesthetic score,num_frames,license", *rows))
    found, _ = sources(root)
    assert [f.metadata for f in found.values()] == [
        {"aesthetic score": 5.5},
        {"aesthetic score": 3, "num_frames": 7},
        {"aesthetic score": 6.0, "num_frames": "x"},
    ]
    assert [f.licence for f in found.values()] == ["cc0", "cc0", "by"]
    kept, reasons = sources(root, where="aesthetic_score >= 5 and licence = cc0")
    assert list(kept) == ["000.mp4"]
    assert reasons == {
        "001.mp4": "aesthetic_score 3 is not >= 5",
        "002.mp4": "licence by is not = cc0",
    }
    assert sources(root, where="num_frames < 9")[1]["000.mp4"] == "has no num_frames"
    with pytest.raises(ValueError, match=r"where=esthetic: .* Did you mean aesthetic score\?"):
        sources(root, where="esthetic > 5")
    with pytest.raises(ValueError, match="is no condition"):
        sources(root, where="aesthetic score")


def test_what_a_sidecar_says_beside_words_travels_along_too(tmp_path):
    root = folder(tmp_path, ["a.mp4"])
    put(root, "a.json", '{"caption": "words", "short_caption": null, "motion": 3, "tags": ["x"]}')
    (file,) = sources(root)[0].values()
    assert (file.caption, file.metadata) == ("words", {"motion": 3, "tags": ["x"]})


def test_of_several_captions_the_first_counts_and_all_are_kept(tmp_path):
    root = folder(tmp_path, ["a.mp4", "b.mp4", "c.mp4"])
    rows = [{"path": "a.mp4", "cap": ["one", "two"]}, {"path": "b.mp4", "cap": None}]
    rows += [{"path": "c.mp4", "cap": "three"}, {"path": "c.mp4", "cap": "four"}]
    put(root, "anno.json", json.dumps(rows))
    found, reasons = sources(root)
    assert [f.caption for f in found.values()] == ["one", "", "three"]
    several = [f.metadata.get("captions") for f in found.values()]
    assert several == [["one", "two"], None, ["three", "four"]]
    assert not reasons


PANDA = (
    "videoID,url,timestamp,caption,matching_score\n"
    "film,https://www.youtube.com/watch?v=film,"
    "\"[['0:00:00.500', '0:00:01.500'], ['0:00:01.000', '0:00:02.000']]\","
    "\"['the first', 'the second']\",\"[0.43, 0.5]\"\n"
    "lost,https://www.youtube.com/watch?v=lost,\"[['0:00:00.500', '0:00:01.500']]\","
    '"[\'a man\']","[0.43]"\n'
)


@pytest.mark.heavy
def test_a_film_is_cut_at_the_stamps_of_its_row(tmp_path):
    """Frame n of the film has the level 40 + 4n: clips show where they come from."""
    root = folder(tmp_path, [])
    root.mkdir()
    write_video(root / "film.mp4", num_frames=48, fps=24.0)
    put(root, "panda.csv", PANDA)
    out = {"output": str(tmp_path / "out"), "duplicate_bits": -1, "repeat_bits": -1}
    config = small_clips(input=str(root), clip_frames=[17, 5], num_workers=1, shots="none", **out)
    manifest = ingest(config, Console(file=io.StringIO()))
    infos = read_index(tmp_path / "out", "train")
    told = [(i.caption, i.original["start_frame"], i.num_frames) for i in infos]
    assert told == [
        ("the first", 12, 17),
        ("the first", 29, 5),
        ("the second", 24, 17),
        ("the second", 41, 5),
    ]
    assert [i.original["matching_score"] for i in infos] == [0.43, 0.43, 0.5, 0.5]
    assert {i.source for i in infos} == {"film.mp4"}
    for info in infos:
        levels = decode(tmp_path / "out", info)[:, 8:-8, 4].mean((1, 2))
        start = info.original["start_frame"]
        wanted = 40 + 4 * np.arange(start, start + info.num_frames) % 200
        assert np.abs(levels - wanted).max() < 3
    assert [r["file"] for r in manifest["rejects"]] == ["lost"]
    assert [film["num_frames"] for film in manifest["films"]] == [24, 24]


@pytest.mark.heavy
def test_stamps_of_a_clip_that_is_cut_already_cut_it_no_more(tmp_path):
    root = folder(tmp_path, [])
    root.mkdir()
    for name in ("cut", "late"):
        write_video(root / f"{name}.mp4", num_frames=24, fps=24.0)
    rows = ["cut,\"['0:00:05.000', '0:00:06.000']\",x", "late,\"['0:00:05.000', '0:00:09.000']\",y"]
    put(root, "koala.csv", "\n".join(["videoID,timestamp,caption", *rows]))
    out = {"output": str(tmp_path / "out"), "duplicate_bits": -1, "repeat_bits": -1}
    config = small_clips(input=str(root), num_workers=1, **out)
    manifest = ingest(config, Console(file=io.StringIO()))
    infos = read_index(tmp_path / "out", "train")
    assert [(i.caption, i.original["start_frame"]) for i in infos] == [("x", 0), ("x", 17)]
    (reject,) = manifest["rejects"]
    assert reject["reason"] == "its stamps begin at 5 s, the film ends at 1 s"


def test_columns_of_a_layout_are_written_as_they_are_compared():
    for layout in LAYOUTS:
        for column in (*layout.path, *layout.name, *layout.caption):
            assert plain(column) == column


def test_parquet_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    for module in ("polars", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    root = folder(tmp_path)
    (root / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"metadata.parquet: .*pip install 'kinescale\[tables\]'"):
        sources(root)


def test_parquet_is_read_where_a_reader_is_installed(tmp_path):
    polars = pytest.importorskip("polars")
    root = folder(tmp_path)
    frame = polars.DataFrame([{"file_name": f, "text": c} for f, c in THREE.items()])
    frame.write_parquet(root / "metadata.parquet")
    assert captions(root) == THREE
