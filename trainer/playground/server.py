"""The playground's server: a page, what it asks, and the files that are drawn."""

import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.dataset.shards import read_index
from trainer.config import RunConfig, load_run
from trainer.generate.arguments import request_of
from trainer.generate.generate import INDEX_BYTES
from trainer.generate.request import PATH_KEYS, READS, Request
from trainer.generate.tasks import read_image, read_video
from trainer.playground.desk import Desk

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request as Call
    from starlette.responses import Response

PAGE = Path(__file__).with_name("page.html")
LOOK_SECONDS = 10.0  # that a look at a ticket waits for news
UPLOAD_BYTES = 256 * 2**20
# Keys of a request that the page may set; files are those that it sent.
KEYS = {
    "prompt", "negative", "task", "source_prompt", "frames", "strength", "prototype", "window",
    "lag", "given_at", "num_frames", "height", "width", "fps", "seed", "method", "steps",
    "guidance", "cfg_zero", *PATH_KEYS,
}  # fmt: skip
SAYS = {
    "text_to_video": "a clip from a prompt",
    "image_to_video": "a clip that begins with an image",
    "extend_forwards": "what follows a video",
    "extend_backwards": "what comes before a video",
    "connect": "what lies between two videos",
    "edit": "a video, changed where a mask is white, or all over",
    "flow_edit": "a video, moved from one prompt to another",
    "loop": "a clip whose end goes on with its beginning",
}
# Nothing but this server is asked for anything.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


def check_installed() -> None:
    """Raise ValueError where the packages of the playground are missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"playground: needs {' and '.join(missing)}. pip install 'kinescale[playground]'."
        )


def usual_shape(run: RunConfig) -> dict[str, float]:
    """Return the shape that most clips had which a run learned from, where they are there."""
    member = run.data.mixture[0].root if run.data.mixture else run.data.root
    index = Path(member) / run.data.train_split / "index.jsonl"
    shape, fps = Request().shape, Request().fps
    if index.is_file() and index.stat().st_size < INDEX_BYTES:
        clips = [info for info in read_index(member, run.data.train_split) if info.num_frames > 1]
        counts: dict[tuple[int, int, int, float], int] = {}
        for info in clips:
            key = info.num_frames, info.height, info.width, info.fps
            counts[key] = counts.get(key, 0) + 1
        if counts:
            frames, height, width, fps = max(counts, key=lambda key: counts[key])
            shape = frames, height, width
    return {"num_frames": shape[0], "height": shape[1], "width": shape[2], "fps": fps}


class Uploads:
    """Files that the page sent, by a name of the server's choice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}

    def take(self, key: str, name: str, content: bytes) -> str:
        """Keep a file; return what names it. Raises ValueError where it is no image or video."""
        if key not in PATH_KEYS:
            raise ValueError(f"key={key}: must be one of {', '.join(PATH_KEYS)}.")
        self._folder.mkdir(parents=True, exist_ok=True)
        found = secrets.token_hex(8) + Path(name).suffix[:8]
        path = self._folder / found
        path.write_bytes(content)
        self._names[found] = name
        try:
            (read_video if "video" in key else read_image)(str(path), key)
        except ValueError as error:
            path.unlink()
            raise ValueError(self.in_words(str(error))) from error
        return found

    def path(self, key: str, name: str) -> str:
        """Return where a file lies."""
        if name not in self._names:
            raise ValueError(f"{key}={name}: was not sent. Choose the file again.")
        return str(self._folder / name)

    def in_words(self, text: str) -> str:
        """Return an error that names files as their sender does."""
        for found, name in self._names.items():
            text = text.replace(str(self._folder / found), name)
        return text


def asked(entry: dict[str, Any], uploads: Uploads) -> Request:
    """Return the request of what the page sent. Raises ValueError on what cannot be."""
    for key in entry:
        if key not in KEYS:
            raise ValueError(f"{key}={entry[key]}: may not be set here. Keys: {sorted(KEYS)}.")
    paths = {k: uploads.path(k, str(entry[k])) for k in PATH_KEYS if entry.get(k)}
    return request_of({**entry, **paths, "out": "clip.mp4"})


def build_app(desk: Desk, page: str, hosts: list[str] | None = None) -> "Starlette":
    """Return the server's application. hosts: names by which it may be asked, any if None."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse, HTMLResponse, JSONResponse
    from starlette.routing import Route

    uploads = Uploads(desk.out / "given")
    shape = usual_shape(load_run(next(iter(desk.rungs.values())).folder))

    def told(work: Callable[["Call"], Awaitable[dict[str, Any]]]) -> Callable[["Call"], Any]:
        """Answer in JSON; a mistake of who asked is an error in words and the key it is about."""

        async def answer(call: "Call") -> "Response":
            try:
                return JSONResponse(await work(call))
            except ValueError as error:
                said = uploads.in_words(str(error))
                key = said.partition("=")[0]
                return JSONResponse(
                    {"error": said, "key": key if key in KEYS else ""}, status_code=400
                )

        return answer

    async def show(call: "Call") -> "Response":
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    async def state(call: "Call") -> dict[str, Any]:
        tasks = [
            {"name": t.value, "says": SAYS[t.value], "needs": sorted(n), "may": sorted(m)}
            for t, (n, m) in READS.items()
        ]
        rungs = [{"name": r.name, "title": r.title, "note": r.note} for r in desk.rungs.values()]
        plain = Request()
        usual = {"steps": plain.steps, "guidance": plain.guidance, **shape}
        return {"tasks": tasks, "rungs": rungs, "usual": usual}

    async def upload(call: "Call") -> dict[str, Any]:
        content = bytearray()
        async for part in call.stream():
            content += part
            if len(content) > UPLOAD_BYTES:
                raise ValueError(f"file: is larger than {UPLOAD_BYTES >> 20} MB. Cut it.")
        key, name = call.query_params.get("key", ""), call.query_params.get("name", "file")
        return {"id": await run_in_threadpool(uploads.take, key, name, bytes(content))}

    async def draw(call: "Call") -> dict[str, Any]:
        body = json.loads(await call.body())
        if not isinstance(body, dict) or not isinstance(body.get("request"), dict):
            raise ValueError("request: must be an object.")
        request = await run_in_threadpool(asked, body["request"], uploads)
        return {"id": (await run_in_threadpool(desk.ask, request, body.get("rungs", []))).id}

    async def look(call: "Call") -> dict[str, Any]:
        seen, name = call.query_params.get("seen", "-1"), call.path_params["ticket"]
        found = await run_in_threadpool(desk.look, name, int(seen), LOOK_SECONDS)
        if found is None:
            raise ValueError(
                f"ticket={name}: is forgotten. Its files are kept in {desk.out / name}."
            )
        for drawing in found["drawings"]:
            drawing["error"] = uploads.in_words(drawing["error"])
        return found

    async def cancel(call: "Call") -> dict[str, Any]:
        desk.cancel(call.path_params["ticket"])
        return {}

    async def file(call: "Call") -> "Response":
        ticket, name = call.path_params["ticket"], call.path_params["name"]
        known = desk.look(ticket)
        kept = [n for one in (known or {"drawings": []})["drawings"] for n in one["files"].values()]
        if name not in kept:
            return JSONResponse(
                {"error": f"file={name}: is none of ticket {ticket}."}, status_code=404
            )
        return FileResponse(desk.out / ticket / name)

    return Starlette(
        routes=[
            Route("/", show),
            Route("/state", told(state)),
            Route("/uploads", told(upload), methods=["POST"]),
            Route("/draw", told(draw), methods=["POST"]),
            Route("/tickets/{ticket}", told(look)),
            Route("/tickets/{ticket}/cancel", told(cancel), methods=["POST"]),
            Route("/files/{ticket}/{name}", file),
        ],
        # A page of somebody else whose name points here may not ask.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts or ["*"])],
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise ValueError where that cannot be."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(
            f"port={port}: cannot be listened to on {host} ({error}). Use port=0, which takes a "
            "free one."
        ) from error
    listener.listen()
    return listener


def serve(desk: Desk, listener: socket.socket, hosts: list[str]) -> None:
    """Serve the page until the process is told to end."""
    import uvicorn

    app = build_app(desk, PAGE.read_text(encoding="utf-8"), hosts)
    # A look that waits for news must not hold up the end.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
