"""Complete commands, keys and choices of ``kinescale`` by Tab in bash and zsh.

usage: kinescale completion bash|zsh

  bash: echo 'eval "$(kinescale completion bash)"' >> ~/.bashrc
  zsh:  echo 'eval "$(kinescale completion zsh)"' >> ~/.zshrc     (after compinit)

Completed are the names of commands, their ``key=`` names, the choices of a group (study=,
experiment=, machine= ...), and, where there is none of these, files.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from data.shell import command
from kinescale.commands import COMMANDS

ROOT = Path(__file__).parents[1]
# Bash ends a word at "=", so only what follows it is replied.
BASH = """\
_kinescale() {
    local before="${COMP_LINE:0:COMP_POINT}" words word
    read -ra words <<< "$before"
    if [[ $before == *' ' ]]; then words+=(""); fi
    word="${words[${#words[@]}-1]}"
    local IFS=$'\\n'
    COMPREPLY=($("${words[0]}" completion words "${words[@]:1}" 2>/dev/null))
    if [[ ${COMPREPLY[0]} == *[=.] ]]; then compopt -o nospace; fi
    if [[ $word == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#*=}"); fi
}
complete -o default -F _kinescale kinescale
"""
ZSH = """\
_kinescale() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -z "${found[1]}" ]]; then _files
    elif [[ "${found[1]}" == *[=.] ]]; then compadd -S '' -- "${found[@]}"
    else compadd -- "${found[@]}"; fi
}
compdef _kinescale kinescale
"""


@command(__doc__)
def main(arguments: list[str]) -> int:
    """Print the script of a shell, or, for that script, what a line can go on with."""
    shell, *words = arguments
    scripts = {"bash": BASH, "zsh": ZSH}
    if shell == "words":
        for line in candidates(words):
            print(line)
        return 0
    if shell not in scripts or words:
        raise ValueError(f"SHELL={' '.join(arguments)}: must be bash or zsh. Give one of them.")
    print(scripts[shell], end="")
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """Return what the last of a line's words, after ``kinescale``, can become.

    A key ends with "=", a section with "."; a choice is ``group=choice`` as a whole.
    """
    *before, last = words or [""]
    if not before:
        return [name for name in [*COMMANDS, "completion"] if name.startswith(last)]
    row = COMMANDS.get(before[0])
    if row is None:
        return []
    group, equals, _ = last.partition("=")
    choices = [folder for conf in row.groups for folder in (ROOT / conf).iterdir()]
    if equals:
        found = [p.stem for c in choices if c.name == group for p in sorted(c.glob("*.yaml"))]
        return [f"{group}={name}" for name in found if f"{group}={name}".startswith(last)]
    keys = {f"{folder.name}=" for folder in choices if folder.is_dir()}
    if row.schema:
        module, _, name = row.schema.partition(":")
        keys |= set(_keys(getattr(import_module(module), name), last))
    return sorted(key for key in keys if key.startswith(last))


def _keys(schema: Any, typed: str, prefix: str = "") -> Iterator[str]:
    """Yield a schema's keys, and those of the section that is being typed."""
    kinds = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key = prefix + field.name
        if not dataclasses.is_dataclass(kinds[field.name]):
            yield f"{key}="
        elif typed.startswith(f"{key}."):
            yield from _keys(kinds[field.name], typed, f"{key}.")
        else:
            yield f"{key}."


if __name__ == "__main__":
    main.run()
