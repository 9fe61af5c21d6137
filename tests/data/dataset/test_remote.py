"""A dataset behind a URL: whole verified shards, bounded room, many processes, killed fetchers."""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import fsspec
import pytest
import torch
from safetensors.torch import save

import data.dataset.remote
from data.bounds import check_bounds
from data.config import BadSamplePolicy, DataConfig
from data.dataset.remote import FetchError, ShardCache, open_root
from data.dataset.shards import ShardWriter, read_index, write_manifest
from data.loading.loader import Loader, load_fixed
from tests.data.conftest import meta

CELL = (4, 16, 16)
NUM_SAMPLES = 60


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Give a dataset of 60 latents in about ten shards, and its manifest."""
    root = tmp_path_factory.mktemp("local")
    with ShardWriter(root, "train", 40_000) as writer:
        for i in range(NUM_SAMPLES):
            latent = torch.full((4, 2, 6 + i % 3, 8 + i % 5), float(i))
            shape = (5, 16 * (6 + i % 3), 16 * (8 + i % 5))
            writer.write(
                meta(f"s-{i:03d}", "latent", shape), save({"latent": latent}), "safetensors"
            )
    write_manifest(root, {"name": "local"})
    assert len(list(root.rglob("*.tar"))) >= 5
    return root


@pytest.fixture
def memory(local):
    """Give the same dataset behind memory://."""
    files = fsspec.filesystem("memory")
    files.put(str(local), "/bucket/set", recursive=True)
    yield "memory://bucket/set"
    files.rm("/bucket", recursive=True)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Let failing fetches fail at once."""
    monkeypatch.setattr(data.dataset.remote, "ATTEMPTS", 2)


def shard_sizes(root):
    return {p.name: p.stat().st_size for p in (root / "train").glob("*.tar")}


def cached_bytes(folder):
    return sum(p.stat().st_size for p in [*folder.rglob("*.tar"), *folder.rglob("*.part")])


def config_of(url, folder, **changes):
    values = {"root": url, "pack_tokens": 512, "packs_per_step": 2, "pool": 8}
    return DataConfig(cache_dir=str(folder), **(values | changes))


def test_a_remote_dataset_trains_like_the_local_one(local, memory, tmp_path):
    remote = Loader(config_of(memory, tmp_path), "train", CELL, 3, 0, 1)
    here = Loader(config_of(str(local), ""), "train", CELL, 3, 0, 1)
    try:
        for _ in range(8):
            step, twin = remote.next_step(), here.next_step()
            assert step.plan == twin.plan
            for pack, other in zip(step.packs, twin.packs, strict=True):
                for a, b in zip(pack.samples, other.samples, strict=True):
                    assert torch.equal(a.latent, b.latent)
        assert remote.state_dict() == here.state_dict()
    finally:
        remote.close()
        here.close()
    fixed = load_fixed(config_of(memory, tmp_path), "train", 5)
    assert [s.info.key for s in fixed] == [
        s.info.key for s in load_fixed(config_of(str(local), ""), "train", 5)
    ]


def test_a_second_process_reads_what_the_first_one_fetched(local, memory, tmp_path):
    first = ShardCache(memory, tmp_path, 0)
    infos = read_index(first.root, "train")
    payloads = [first.read_payload("train", info) for info in infos]
    fsspec.filesystem("memory").rm("/bucket/set/train", recursive=True)
    second = ShardCache(memory, tmp_path, 0)  # needs the manifest only
    assert [second.read_payload("train", info) for info in infos] == payloads
    assert not list(tmp_path.rglob("*.part"))


def test_another_version_of_the_dataset_has_another_mirror(local, memory, tmp_path):
    first = ShardCache(memory, tmp_path, 0)
    manifest = json.loads((local / "manifest.json").read_text())
    changed = json.dumps(manifest | {"name": "other"}).encode()
    fsspec.filesystem("memory").pipe("/bucket/set/manifest.json", changed)
    assert ShardCache(memory, tmp_path, 0).root != first.root


def test_the_least_recently_read_shard_goes_first_and_the_limit_holds(local, memory, tmp_path):
    sizes = shard_sizes(local)
    limit = 3 * max(sizes.values())
    cache = ShardCache(memory, tmp_path, limit)
    firsts = {info.shard: info for info in reversed(read_index(local, "train"))}
    names = sorted(firsts)
    for name in [names[0], names[1], names[2], names[0], names[3]]:
        cache.read_payload("train", firsts[name])
        assert cached_bytes(tmp_path) <= limit
        time.sleep(0.01)  # file times tell which was read last
    left = {path.name for path in cache.root.rglob("*.tar")}
    assert left == {names[0], names[2], names[3]}


def test_threads_share_a_cache_smaller_than_the_dataset(local, memory, tmp_path):
    limit = 2 * max(shard_sizes(local).values())
    caches = [ShardCache(memory, tmp_path, limit) for _ in range(4)]
    infos = read_index(local, "train")
    expected = {i.key: float(i.key.split("-")[1]) for i in infos}
    largest, stop = 0, threading.Event()

    def watch():
        nonlocal largest
        while not stop.wait(0.001):
            # Files evicted or renamed during the count would be counted beside what replaced them.
            with open(tmp_path / "cache.lock", "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    largest = max(largest, cached_bytes(tmp_path))
                except FileNotFoundError:
                    continue  # a fetch that failed

    def read(number):
        order = infos[number * 7 :] + infos[: number * 7]
        return {i.key: caches[number].read_payload("train", i) for i in order}

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(read, range(4)))
    stop.set()
    watcher.join()
    assert all(set(part) == set(expected) for part in found)
    assert all(part == found[0] for part in found)
    assert 0 < largest <= limit


class Failing:
    """The memory file system whose shards break for the first reads of each."""

    def __init__(self, monkeypatch, damage, times):
        self.opened, real = {}, fsspec.open

        def opening(url, mode):
            self.opened[url] = self.opened.get(url, 0) + 1
            if url.endswith(".tar") and self.opened[url] <= times:
                path = url.removeprefix("memory://")
                content = damage(fsspec.filesystem("memory").cat(f"/{path}"))
                fsspec.filesystem("memory").pipe("/broken", content)
                return real("memory://broken", mode)
            return real(url, mode)

        monkeypatch.setattr(fsspec, "open", opening)


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"x",
    "flipped": lambda content: content[:700] + b"\xff\x00\xff" + content[703:],
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_download_is_fetched_again_and_never_seen(memory, tmp_path, monkeypatch, kind):
    failing = Failing(monkeypatch, DAMAGES[kind], times=1)
    cache = ShardCache(memory, tmp_path, 0)
    for info in read_index(cache.root, "train")[:12]:
        assert cache.read_payload("train", info)
    assert {n for url, n in failing.opened.items() if url.endswith(".tar")} == {2}


def test_a_dead_network_stops_the_run_and_drops_nothing(memory, tmp_path, monkeypatch):
    Failing(monkeypatch, DAMAGES["truncated"], times=2)
    drop = config_of(memory, tmp_path, on_bad_sample=BadSamplePolicy.drop)
    loader = Loader(drop, "train", CELL, 3, 0, 1)
    try:
        before = loader.state_dict()
        with pytest.raises(FetchError, match=r"shard-\d+\.tar could not be fetched in 2 attempts"):
            loader.next_step()
        assert loader.state_dict() == before
        while True:  # every shard fails once more, and is there at the next call
            try:
                step = loader.next_step()
                break
            except FetchError:
                continue
        assert step.index == 0
        assert not any(pack.dropped for pack in step.packs)
    finally:
        loader.close()
    assert not list(tmp_path.rglob("*.part"))


def test_a_key_in_a_url_is_told_nowhere(tmp_path, caplog):
    url = "memory://me:planted@bucket/set"
    with pytest.raises(FetchError, match=r"data.root=memory://\*\*\*@bucket/set: .*Error") as error:
        ShardCache(url, tmp_path, 0)
    with pytest.raises(ValueError, match=r"data.root=memory://\*\*\*@bucket/set is a URL"):
        open_root(DataConfig(cache_dir=""), url)
    assert caplog.text.count("attempt") == 2
    assert "planted" not in str(error.value) + caplog.text


def test_a_shard_that_went_bad_on_the_local_disk_is_fetched_again(memory, tmp_path, rewrite):
    cache = ShardCache(memory, tmp_path, 0)
    info = read_index(cache.root, "train")[3]
    payload = cache.read_payload("train", info)
    rewrite(cache.root / "train" / info.shard, info.offset + 200, b"\xff\x00\xff")
    assert cache.read_payload("train", info) == payload
    lying = replace(info, sha256="0" * 64)
    with pytest.raises(ValueError, match="do not match it"):
        cache.read_payload("train", lying)


FETCH = """
import sys
from pathlib import Path
from data.dataset.remote import ShardCache
from data.dataset.shards import read_index
cache = ShardCache(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
print("ready", flush=True)
for info in read_index(cache.root, "train"):
    cache.read_payload("train", info)
"""


def start_fetcher(url, folder, limit):
    arguments = [sys.executable, "-c", FETCH, url, str(folder), str(limit)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment)


def wait_for(condition, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_fetcher_killed_in_the_middle_leaves_nothing_in_the_way(local, tmp_path):
    """The first shard is a pipe that nobody writes to: the fetcher hangs until it is killed."""
    remote, folder = tmp_path / "remote", tmp_path / "cache"
    limit = 2 * max(shard_sizes(local).values())
    (remote / "train").mkdir(parents=True)
    for name in ("manifest.json", "train/index.jsonl"):
        (remote / name).write_bytes((local / name).read_bytes())
    shards = sorted(shard_sizes(local))
    for name in shards[1:]:
        (remote / "train" / name).symlink_to(local / "train" / name)
    pipe = remote / "train" / shards[0]
    os.mkfifo(pipe)
    with start_fetcher(f"file://{remote}", folder, limit) as fetcher:
        try:
            assert fetcher.stdout.readline() == b"ready\n"
            wait_for(lambda: list(folder.rglob("*.part")))
        finally:
            fetcher.kill()
    assert list(folder.rglob("*.part"))
    pipe.unlink()
    pipe.symlink_to(local / "train" / shards[0])
    cache = ShardCache(f"file://{remote}", folder, limit)
    infos = read_index(local, "train")
    # Other shards first: the killed one's room is taken back by eviction, then it is fetched.
    for info in [*infos[20:], *infos[:20]]:
        assert cache.read_payload("train", info)
        assert cached_bytes(folder) <= limit
    assert not list(folder.rglob("*.part"))


def test_processes_share_one_cache_with_a_limit(local, tmp_path):
    limit = 2 * max(shard_sizes(local).values())
    fetchers = [start_fetcher(f"file://{local}", tmp_path, limit) for _ in range(3)]
    for fetcher in fetchers:
        fetcher.communicate(timeout=300)
    assert [fetcher.returncode for fetcher in fetchers] == [0, 0, 0]
    assert 0 < cached_bytes(tmp_path) <= limit


def test_values_that_cannot_work_are_named(local, memory, tmp_path):
    with pytest.raises(ValueError, match=r"data\.cache_dir=\(empty\): must name a folder"):
        open_root(DataConfig(root=memory), memory)
    with pytest.raises(ValueError, match=r"data\.cache_bytes=-1: must be at least 0"):
        check_bounds(config_of(memory, tmp_path, cache_bytes=-1), "data.")
    with pytest.raises(FetchError, match=r"data\.cache_bytes=1000: must hold the largest shard"):
        ShardCache(memory, tmp_path, 1000)
    with pytest.raises(FetchError, match=r"data\.root=memory://none: manifest\.json could not be"):
        ShardCache("memory://none", tmp_path, 0)
    assert open_root(DataConfig(), str(local)) == (local, None)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "{",
        '{"shards": {}}',
        '{"shards": {"train": {"a.tar": {"sha256": "0", "nbytes": 5}}}}',
        '{"shards": {"../x": {"a.tar": {"sha256": "%s", "nbytes": 5}}}}' % ("0" * 64),
        '{"shards": {"train": {"../a.tar": {"sha256": "%s", "nbytes": 5}}}}' % ("0" * 64),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(tmp_path, text):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.json").write_text(text)
    with pytest.raises(FetchError, match=r"must list bytes and SHA-256 of all shards"):
        ShardCache(f"file://{tmp_path}/set", tmp_path / "cache", 0)


def test_a_truncated_index_is_refused(memory, tmp_path):
    files = fsspec.filesystem("memory")
    lines = files.cat("/bucket/set/train/index.jsonl").splitlines(keepends=True)
    files.pipe("/bucket/set/train/index.jsonl", b"".join(lines[:-1]))
    with pytest.raises(FetchError, match=r"index\.jsonl could not be fetched .*SHA-256"):
        ShardCache(memory, tmp_path, 0)
