"""Ask an OpenAI-compatible chat endpoint, patiently and within bounds.

Whatever the other side does, a question ends in an answer that ``check`` accepts or in an
:class:`AskError` with the reason: answers are capped in bytes and time, never unpacked, redirects
are not followed, the key is sent to the configured address only and cut out of every message.
"""

import json
import logging
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai
from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from trainer.chat.http import BoundedTransport, Pace, retry_after

log = logging.getLogger("trainer")
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the second attempt; doubled each time
_FATAL = {401: "the key is refused", 403: "access is refused", 404: "no such model or address"}
T = TypeVar("T")
Messages = list[dict[str, Any]]


class AskError(Exception):
    """A question without a usable answer; carries the reason and what it cost."""

    def __init__(self, reason: str, attempts: int, tokens_in: int, tokens_out: int) -> None:
        super().__init__(reason)
        self.reason, self.attempts = reason, attempts
        self.tokens_in, self.tokens_out = tokens_in, tokens_out


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What ``check`` made of an answer, and what it cost, failed attempts included."""

    value: T
    attempts: int
    tokens_in: int
    tokens_out: int


@dataclass
class EndpointConfig:
    """Where and how to ask."""

    endpoint: Annotated[
        str, Doc("Base URL of an OpenAI-compatible server, as in https://host/v1.")
    ] = ""
    model: Annotated[str, Doc("Its name there.")] = ""
    key_env: Annotated[str, Doc("Environment variable that holds the key; empty sends none.")] = (
        "OPENAI_API_KEY"
    )
    requests_per_minute: Annotated[float, Gt(0), Doc("Upper bound over all threads.")] = 60.0
    concurrency: Annotated[int, Ge(1), Le(256), Doc("Questions under way at once.")] = 4
    attempts: Annotated[
        int,
        Ge(1),
        Doc("Attempts at one question, after refusals, server errors, drops and unusable answers."),
    ] = 6
    timeout_seconds: Annotated[float, Gt(0), Doc("Time one whole answer may take.")] = 120.0
    answer_tokens: Annotated[int, Ge(1), Doc("Most tokens of one answer.")] = 500
    json_mode: Annotated[
        bool,
        Doc("Ask the server to answer in JSON only; turn it off where it knows no such thing."),
    ] = True
    price_in: Annotated[float, Ge(0), Doc("Price of a million tokens read, in any currency.")] = 0.0
    price_out: Annotated[
        float, Ge(0), Doc("Price of a million tokens written, in the same currency.")
    ] = 0.0
    max_cost: Annotated[
        float, Ge(0), Doc("Stop once so much is spent, earlier sittings included; 0 sets no limit.")
    ] = 0.0

    def check(self) -> None:
        """Raise ValueError on values that cannot work."""
        parts = urlsplit(self.endpoint)
        plain = not (parts.username or parts.password or parts.query or parts.fragment)
        rules: list[tuple[str, bool, str, str]] = [
            (
                "endpoint",
                parts.scheme in ("http", "https") and bool(parts.hostname) and plain,
                "be an http(s) address without user, password or query",
                "https://host/v1",
            ),
            ("model", bool(self.model), "name a model of the endpoint", "model=NAME"),
            (
                "max_cost",
                not self.max_cost or self.price_in + self.price_out > 0,
                "come with prices",
                "price_in=0.15 price_out=0.6",
            ),
        ]
        for key, holds, rule, remedy in rules:
            if not holds:
                raise ValueError(f"{key}={getattr(self, key)}: must {rule}. Use {remedy}.")

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class Endpoint:
    """One endpoint and model; :meth:`ask` may be called from many threads.

    Raises ValueError where the key's variable is not set.
    """

    def __init__(self, config: EndpointConfig, pace: Pace | None = None) -> None:
        config.check()
        self.config, self._stopped = config, threading.Event()
        self.pace = pace or Pace(config.requests_per_minute, sleep=self._sleep)
        self._key = os.environ.get(config.key_env, "") if config.key_env else ""
        if config.key_env and not self._key:
            raise ValueError(
                f"key_env={config.key_env}: is not set in the environment. Set it, or use key_env= "
                "for a server that needs no key."
            )
        local = urlsplit(config.endpoint).hostname in ("localhost", "127.0.0.1", "::1")
        if self._key and config.endpoint.startswith("http:") and not local:
            log.warning("endpoint=%s: sends the key unencrypted; use https", config.endpoint)
        self._lock = threading.Lock()
        self.tokens = (0, 0)  # read and written
        self._client = openai.OpenAI(
            base_url=config.endpoint,
            api_key=self._key or "none",
            max_retries=0,  # the retries here count attempts and tokens
            timeout=config.timeout_seconds,
            http_client=httpx2.Client(
                transport=BoundedTransport(config.timeout_seconds),
                timeout=config.timeout_seconds,
                follow_redirects=False,
            ),
        )

    def ask(self, messages: Messages, check: Callable[[str], T], name: str) -> Answer[T]:
        """Ask until ``check`` accepts an answer's text (it raises ValueError on others).

        ``name`` seeds the jitter of the waits. Raises AskError when the attempts are used up or the
        server refuses this question, ValueError when no question can succeed.
        """
        jitter = random.Random(name)
        tokens_in = tokens_out = 0
        reason = ""
        for attempt in range(1, self.config.attempts + 1):
            self.pace.wait()
            if self._stopped.is_set():
                raise AskError("stopped", attempt - 1, tokens_in, tokens_out)
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * jitter.uniform(0.5, 1.0)
            try:
                body = self._post(messages)
                paid = _usage(body)
                tokens_in, tokens_out = tokens_in + paid[0], tokens_out + paid[1]
                self.count(*paid)
                return Answer(check(_text_of(body)), attempt, tokens_in, tokens_out)
            except openai.APIStatusError as error:
                reason = self.scrub(f"HTTP {error.status_code}: {error.message}")
                if error.status_code in _FATAL or 300 <= error.status_code < 400:
                    why = _FATAL.get(error.status_code, "the address redirects")
                    raise ValueError(
                        f"endpoint={self.config.endpoint}, model={self.config.model}: {why} "
                        f"({reason[:300]}). Correct endpoint, model or the key's variable."
                    ) from None
                if error.status_code not in (408, 409, 425, 429) and error.status_code < 500:
                    raise AskError(reason, attempt, tokens_in, tokens_out) from None
                asked = retry_after(error.response.headers.get("retry-after", ""))
                if asked is not None:
                    self.pace.hold(asked)
                    wait = 0.0  # the pace waits
            except (openai.APIError, ValueError, RecursionError) as error:
                cause = f" ({error.__cause__})" if error.__cause__ else ""
                reason = self.scrub(f"{error}{cause}") or type(error).__name__
            log.info("%s: attempt %d failed: %s", name, attempt, reason[:200])
            if attempt < self.config.attempts:
                self.pace.sleep(wait)
        raise AskError(reason, self.config.attempts, tokens_in, tokens_out)

    def _post(self, messages: Messages) -> dict[str, Any]:
        """Send one question; return the decoded answer."""
        extra = {"response_format": {"type": "json_object"}} if self.config.json_mode else {}
        raw = self._client.chat.completions.with_raw_response.create(
            model=self.config.model,
            messages=messages,
            max_tokens=self.config.answer_tokens,
            **extra,  # type: ignore[call-overload]
        )
        body = json.loads(raw.http_response.content)
        if not isinstance(body, dict):
            raise ValueError("the answer is no JSON object")
        return body

    def scrub(self, text: str) -> str:
        """Cut the key out of a message, and bound its length."""
        return (text.replace(self._key, "[key]") if self._key else text)[:1000]

    def count(self, tokens_in: int, tokens_out: int) -> None:
        """Add tokens to what was spent."""
        with self._lock:
            self.tokens = self.tokens[0] + tokens_in, self.tokens[1] + tokens_out

    def cost(self) -> float:
        """Return what is spent."""
        return self.config.cost(*self.tokens)

    def _sleep(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def stop(self) -> None:
        """Let no further question or attempt begin; sleeping threads wake up."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _text_of(body: dict[str, Any]) -> str:
    try:
        text = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("the answer holds no choices[0].message.content") from error
    if not isinstance(text, str):
        raise ValueError("the answer's content is no text")
    return text


def _usage(body: dict[str, Any]) -> tuple[int, int]:
    """Return the tokens that the server counted; 0 where it says nothing sensible."""
    usage = body.get("usage")
    found = [
        usage.get(name) if isinstance(usage, dict) else 0
        for name in ("prompt_tokens", "completion_tokens")
    ]
    counts = [n if isinstance(n, int) and 0 <= n < 10**9 else 0 for n in found]
    return counts[0], counts[1]
