"""The playground: requests through several runs, errors in words, and its page in a browser."""

import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.config import load_run
from trainer.playground.desk import Rung
from trainer.playground.server import POLICY, listen, usual_shape

from ..checkpoints import write_untrained
from .serving import Served, serving

ROOT = Path(__file__).parents[3]
SMALL = {"num_frames": 5, "height": 32, "width": 48, "steps": 2}


def rungs_of(run: Path) -> list[Rung]:
    """Return one run under two names."""
    return [Rung(name, run, f"{name} FLOPs", "a note") for name in ("first", "second")]


@pytest.fixture(scope="module")
def drawn(latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of weights that were only drawn."""
    return write_untrained(tmp_path_factory.mktemp("drawn"), latents)


@pytest.fixture(scope="module")
def served(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a playground of one run under two names."""
    with serving(rungs_of(drawn), tmp_path_factory.mktemp("kept")) as found:
        yield found


def picture() -> bytes:
    """Return a PNG of 48 x 32 pixels."""
    buffer = io.BytesIO()
    pixels = np.arange(32 * 48 * 3, dtype=np.uint32).reshape(32, 48, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_request_is_drawn_by_each_run_from_the_same_noise_and_kept(served: Served) -> None:
    ticket = served.draw({"prompt": "a blob", "seed": 3, **SMALL}, ["first", "second"])
    assert [one["state"] for one in ticket["drawings"]] == ["done", "done"]
    assert ticket["shape"] == [5, 32, 48]
    folder = served.desk.out / ticket["id"]
    names = {f"{rung}.{end}" for rung in ("first", "second") for end in ("mp4", "gif", "png")}
    assert {path.name for path in folder.iterdir()} == names | {
        "first.mp4.json", "second.mp4.json"
    }  # fmt: skip
    first, second = (served.ask(f"files/{ticket['id']}/{rung}.mp4") for rung in ("first", "second"))
    assert first == second
    assert first[0] == 200
    facts = json.loads((folder / "first.mp4.json").read_text(encoding="utf-8"))
    assert (facts["prompt"], facts["seed"], len(facts["weights"])) == ("a blob", 3, 64)
    image = served.draw({**SMALL, "num_frames": 1}, ["first"])
    assert image["drawings"][0]["files"] == {"png": "first.png", "json": "first.png.json"}
    assert image["id"] > ticket["id"]


def test_progress_is_told_while_it_is_drawn(served: Served) -> None:
    name = served.ask("draw", {"request": {**SMALL, "steps": 6}, "rungs": ["first"]})[1]["id"]
    shares, seen = [], -1
    while True:
        ticket = served.ask(f"tickets/{name}?seen={seen}")[1]
        assert ticket["version"] > seen or ticket["over"]
        seen = ticket["version"]
        shares.append(ticket["drawings"][0]["share"])
        if ticket["over"]:
            break
        if 0 < shares[-1] < 1:
            assert ticket["drawings"][0]["eta_seconds"] > 0
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(set(shares)) > 2


def test_an_image_that_was_sent_begins_a_clip(served: Served) -> None:
    status, said = served.ask("uploads?key=image&name=my%20ball.png", picture())
    assert status == 200
    request = {"task": "image_to_video", "image": said["id"], "num_frames": 5, "steps": 1}
    ticket = served.draw(request, ["first"])
    assert ticket["drawings"][0]["state"] == "done"
    assert ticket["shape"] == [5, 32, 48]  # that of the image
    assert "never met image_to_video" in ticket["drawings"][0]["warnings"][0]


BAD = {
    "a size of zero": ({"height": 0}, ["first"], "height", "height=0: must be at least 1"),
    "no number": ({"height": "tall"}, ["first"], "height", "height=tall: value 'tall'"),
    "frames between": ({"num_frames": 16}, ["first"], "num_frames", "Cut the clip to 13 frames"),
    "no such task": ({"task": "zoom"}, ["first"], "task", "task=zoom: invalid value 'zoom'"),
    "an image that is missing": (
        {"task": "image_to_video"}, ["first"], "image", "image=: must name a file",
    ),
    "a file of this machine": (
        {"task": "image_to_video", "image": "/etc/hosts"}, ["first"], "image", "was not sent",
    ),
    "where to write": ({"out": "/x.mp4"}, ["first"], "", "out=/x.mp4: may not be set here"),
    "a stored clip": ({"reference": {}}, ["first"], "", "reference={}: may not be set here"),
    "no model": ({}, [], "", "must name one model at least"),
    "another model": ({}, ["third"], "", "rungs=third: is none of first, second"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_refused_in_words_with_its_key(served: Served, case: str) -> None:
    request, rungs, key, words = BAD[case]
    status, said = served.ask("draw", {"request": {**SMALL, **request}, "rungs": rungs})
    assert status == 400
    assert said["key"] == key
    assert words in said["error"]


def test_what_only_drawing_finds_is_told_by_the_name_that_its_sender_knows(served: Served) -> None:
    status, said = served.ask("uploads?key=image&name=notes.txt", b"no image at all")
    assert (status, said["key"]) == (400, "image")
    assert said["error"].startswith("image=notes.txt: is no image")
    ids = {
        key: served.ask(f"uploads?key={key}&name={key}.png", picture())[1]["id"]
        for key in ("image", "mask")
    }
    assert served.ask("uploads?key=out&name=x", picture())[0] == 400
    ticket = served.draw({"task": "loop", **SMALL}, ["first", "second"])
    assert [one["state"] for one in ticket["drawings"]] == ["failed", "failed"]
    assert "task=loop needs whole latents" in ticket["drawings"][0]["error"]
    everything = {"task": "image_to_video", "image": ids["image"], **SMALL, "num_frames": 1}
    (failed,) = served.draw(everything, ["first"])["drawings"]
    assert "leaves nothing to make" in failed["error"]
    assert str(served.desk.out) not in failed["error"]


def test_a_ticket_that_is_cancelled_ends_and_the_next_one_is_drawn(served: Served) -> None:
    long = {"request": {**SMALL, "steps": 1000}, "rungs": ["first", "second"]}
    name = served.ask("draw", long)[1]["id"]
    assert served.ask(f"tickets/{name}/cancel", b"")[0] == 200
    ticket = served.end_of(name)
    assert [one["state"] for one in ticket["drawings"]] == ["cancelled", "cancelled"]
    assert served.draw(SMALL, ["first"])["drawings"][0]["state"] == "done"


def test_only_what_was_drawn_is_given_away_and_to_this_host_alone(served: Served) -> None:
    ticket = served.draw(SMALL, ["first"])
    for name in ("second.mp4", "..%2F..%2Fconfig.yaml", ".."):
        assert served.ask(f"files/{ticket['id']}/{name}")[0] == 404
    assert served.ask("files/9999/first.mp4")[0] == 404
    assert served.ask("state", Host="elsewhere.example")[0] == 400
    status, said = served.ask("tickets/9999")
    assert status == 400
    assert said["error"].startswith("ticket=9999: is forgotten")


def test_a_port_that_is_taken_is_refused() -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    try:
        with pytest.raises(ValueError, match=rf"port={port}: cannot be listened to .* Use port=0"):
            listen("127.0.0.1", port)
    finally:
        taken.close()


def test_the_page_begins_with_the_shape_that_most_clips_had(drawn: Path) -> None:
    assert usual_shape(load_run(drawn)) == {
        "num_frames": 17, "height": 64, "width": 96, "fps": 12.0
    }  # fmt: skip


@pytest.mark.heavy
def test_the_command_serves_a_run_until_ctrl_c(drawn: Path, tmp_path: Path) -> None:
    words = [f"run={drawn}", "port=0", f"out={tmp_path / 'kept'}"]
    command = [sys.executable, "-m", "sweeps.playground", *words]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    assert process.stdout is not None
    with process, process.stdout:
        said = process.stdout.readline()
        address = said.removeprefix("playground: ").removesuffix(" (Ctrl-C ends it)\n")
        with urllib.request.urlopen(f"{address}/state", timeout=60) as answer:
            state = json.load(answer)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert [rung["name"] for rung in state["rungs"]] == [drawn.name]
    assert state["rungs"][0]["note"] == "not finished"


# Draws a clip, then asks for a height of zero, then chooses another task.
SCRIPT = """<script>
addEventListener("load", async () => {
  const errors = [], wait = async (ready) => {
    while (!ready()) await new Promise((done) => setTimeout(done, 50));
  };
  addEventListener("error", (event) => errors.push(event.message));
  addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
  await wait(() => document.querySelectorAll("[name=rung]").length);
  const form = document.getElementById("form"), set = (name, value) => {
    form.elements[name].value = value;
    form.elements[name].dispatchEvent(new Event("change", { bubbles: true }));
  };
  const usual = ["num_frames", "height", "width"].map((name) => form.elements[name].value);
  for (const [name, value] of Object.entries(VALUES)) set(name, value);
  const box = document.getElementById("error");
  form.querySelector(".draw").click();
  await wait(() => !box.hidden || document.querySelectorAll("[data-state=done]").length === 2);
  const videos = [...document.querySelectorAll(".card video")];
  await wait(() => !box.hidden || videos.every((video) => video.readyState > 1));
  const drawn = {
    words: box.textContent, videos: videos.length, head: document.querySelector(".head")?.innerText,
    sizes: videos.map((video) => [video.videoWidth, video.videoHeight]),
    links: [...document.querySelectorAll(".card a")].map((link) => link.textContent),
  };
  const inside = (name) => form.elements[name].offsetParent !== null;
  set("task", "image_to_video");
  const asks = { image: inside("image"), video: inside("video") };
  set("task", "text_to_video");
  set("height", "0");
  form.querySelector(".draw").click();
  await wait(() => !box.hidden);
  const refused = { words: box.textContent, focus: document.activeElement.name };
  refused.invalid = form.elements.height.getAttribute("aria-invalid");
  if (LAST) { box.hidden = true; set("height", "32"); scrollTo(0, 0); }
  const root = document.documentElement, named = "input, select, textarea, button, video, a";
  const nameless = [...document.querySelectorAll(named)].filter((item) => !item.labels?.length &&
    !item.getAttribute("aria-label") && !item.textContent).map((item) => item.outerHTML);
  await fetch("/probe", { method: "POST", body: JSON.stringify({
    usual, drawn, asks, refused, errors, nameless, width: root.clientWidth,
    overflow: root.scrollWidth - root.clientWidth,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
  }) });
});
</script>"""
VALUES = {"prompt": "a red ball", "num_frames": 5, "height": 32, "width": 48, "steps": 2}


def script(values: dict[str, object], last: bool = False) -> str:
    """Return the script with the values that it sets. last: end with the page as it was drawn."""
    words = SCRIPT.replace("VALUES", json.dumps(values)).replace("LAST", json.dumps(last))
    return words


@pytest.mark.page
@pytest.mark.parametrize("width", [1200, 400])
def test_the_page_draws_side_by_side_and_says_what_is_wrong_at_any_width(
    drawn: Path, tmp_path: Path, width: int
) -> None:
    with serving(rungs_of(drawn), tmp_path / "kept", script(VALUES)) as served:
        probe = served.browse(tmp_path, width)
        origin = served.address
    assert probe["errors"] == []
    assert probe["drawn"]["words"] == ""
    assert probe["usual"] == ["17", "64", "96"]
    assert probe["drawn"]["sizes"] == [[48, 32]] * 2
    assert probe["drawn"]["links"] == ["mp4", "gif", "sheet", "json"] * 2
    assert "a red ball" in probe["drawn"]["head"]
    assert "text to video, 5 frames, 48 x 32, seed 0" in probe["drawn"]["head"]
    assert probe["asks"] == {"image": True, "video": False}
    assert probe["refused"]["words"].startswith("height=0: must be at least 1")
    assert (probe["refused"]["focus"], probe["refused"]["invalid"]) == ("height", "true")
    assert probe["nameless"] == []
    assert probe["width"] == width
    assert probe["overflow"] <= 0
    assert all(name.startswith(f"{origin}/") for name in probe["loaded"])
    assert "default-src 'none'" in POLICY
