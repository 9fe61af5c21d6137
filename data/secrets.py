"""Which texts hold a key, and the one rule about them: a key is never written and never printed.

A key is the value of an environment variable that is named like one, or what shows itself: user and
password in a URL, a signed URL's signature, a webhook's address, ``HF_TOKEN=...``, a value with a
provider's prefix. What is written for good is refused (:func:`refuse_secrets`); what is printed or
sent is masked (:func:`masked`). Standard library alone.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MASK = "***"
# A name is made of words: TOKENIZERS_PARALLELISM holds none of these, PGPASSWORD ends in one.
_NAME = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|WEBHOOK)S?(?=_|$)|(^|_)PASS(?=_|$)"
)
_COUNTED = re.compile(r"(^|_)TOKENS(?=_|$)")  # MAX_TOKENS counts, as everywhere in this field
_SIGNED = {"SIG", "SIGNATURE", "AUTH", "PWD"}  # last words of a URL's parameters that are keys, too
_SHORTEST = 8  # a shorter value stands in harmless texts by chance

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://[^\s'\"<>]+")
_USER = re.compile(r"(?<=://)([^/?#]*)@")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#?]+)=([^&;#]+)")
_WEBHOOK = re.compile(
    r"(hooks\.slack\.com/|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/"
    r"|api\.telegram\.org/bot)[^\s'\"<>,\])}]+",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"\b([A-Z][A-Z0-9_]+)=[A-Za-z0-9+/=_.~-]{8,}")
_SHAPE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{32,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s]*"
)


def is_secret_name(name: str) -> bool:
    """Tell whether a variable or parameter of this name is likely to hold a key."""
    return _NAME.search(_COUNTED.sub("", name.upper())) is not None


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that look like keys: by their names, and not too short to be one.

    A variable that names a file holds no key itself.
    """
    return {
        name: value
        for name, value in environ.items()
        if is_secret_name(name) and len(value) >= _SHORTEST and not os.path.exists(value)
    }


def masked(text: str, environ: Mapping[str, str]) -> str:
    """Return a text in which keys are ``***``, and values of variables ``<NAME>``."""
    longest_first = sorted(secrets_of(environ).items(), key=lambda pair: -len(pair[1]))
    for name, value in longest_first:
        text = text.replace(value, f"<{name}>")
    for pattern, replace in _RULES:
        text = pattern.sub(replace, text)
    return text


def masked_in(value: Any, environ: Mapping[str, str]) -> Any:
    """Return a JSON-like value in which every text is masked."""
    if isinstance(value, str):
        return masked(value, environ)
    if isinstance(value, Mapping):
        return {key: masked_in(entry, environ) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [masked_in(entry, environ) for entry in value]
    return value


def refuse_secrets(texts: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Raise ValueError where a text, by the key or file that names it, holds a key."""
    for name, value in secrets_of(environ).items():
        for what, text in texts.items():
            if value in text:
                raise ValueError(
                    f"{what}: holds the value of ${name}, which must never be written. Remove it: "
                    f"a job reads the variable itself (on SLURM: cluster.slurm.pass_env=[{name}])."
                )
    for what, text in texts.items():
        for shown in _found(text):
            raise ValueError(
                f"{what}: holds a key ({shown}), which must never be written. Give it without: "
                "keys come from environment variables, such as AWS_SECRET_ACCESS_KEY, or for "
                "addresses from fsspec's own files (~/.config/fsspec/*.json)."
            )


def texts_in(value: Any, key: str = "") -> dict[str, str]:
    """Return every text of a JSON-like value by its key, as ``data.mixture[0].root``."""
    if isinstance(value, str):
        return {key: value}
    found: dict[str, str] = {}
    if isinstance(value, Mapping):
        for name, entry in value.items():
            found |= texts_in(entry, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            found |= texts_in(entry, f"{key}[{index}]")
    return found


def _found(text: str) -> Iterator[str]:
    """Yield what shows itself as a key, masked."""
    for pattern, replace in _RULES:
        for match in pattern.finditer(text):
            shown = replace(match)
            if shown != match[0]:
                yield shown


def _mask_url(match: re.Match[str]) -> str:
    """Mask user and password, and signatures and keys among the parameters.

    A user alone is a key on the web (as forges have it), and a name elsewhere: abfs://container@host.
    """
    web = match[1].lower().endswith(("http", "https"))

    def user(found: re.Match[str]) -> str:
        return f"{MASK}@" if web or found[1].partition(":")[2] else found[0]

    def parameter(found: re.Match[str]) -> str:
        name = found[1].upper().replace("-", "_")
        key = is_secret_name(name) or name.split("_")[-1] in _SIGNED
        return f"{found[1]}={MASK}" if key else found[0]

    return _PARAMETER.sub(parameter, _USER.sub(user, match[0], count=1))


def _mask_assigned(match: re.Match[str]) -> str:
    return f"{match[1]}={MASK}" if is_secret_name(match[1]) else match[0]


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_SHAPE, lambda match: MASK),
    (_WEBHOOK, lambda match: match[1] + MASK),
    (_ASSIGNED, _mask_assigned),
    (_URL, _mask_url),
)
