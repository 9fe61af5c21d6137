"""Where a prediction comes from: a study's table, the settings its runs were trained with."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweeps.fit.beside import DEFAULT_FORM, beside
from sweeps.kinds.compose import CONF_DIR, compose_any
from sweeps.kinds.isoflop.config import StudyConfig
from sweeps.study.config import RecipeConfig

COMMITTED = Path("docs") / "studies"  # where finished studies of this repository are kept


@dataclass(frozen=True)
class Source:
    """A table of runs; base, recipe and law of its study; `notes` say where they are from."""

    name: str
    table: Path
    base: list[str]
    recipe: RecipeConfig
    notes: list[str]
    form: str = DEFAULT_FORM


def find_source(text: str) -> Source:
    """Find a study by its name, its folder, or a table of its runs.

    Raises:
        ValueError: there is no table, or the study has no law.
    """
    path = Path(text)
    if path.is_file():
        return _with_settings(path.stem, path, path.parent)
    if path.is_dir():
        if not (path / "runs.csv").is_file():
            raise ValueError(
                f"study={text}: has no runs.csv. Give a study's folder, such as docs/studies/demo."
            )
        return _with_settings(path.resolve().name, path / "runs.csv", path)
    if not (CONF_DIR / "study" / f"{text}.yaml").is_file():
        raise ValueError(
            f"study={text}: is no study's name, folder or csv. Use study=demo, or "
            "study=docs/studies/demo."
        )
    study = compose_any([f"study={text}"])
    for folder in (Path(getattr(study, "root", "runs")) / text, COMMITTED / text):
        if (folder / "runs.csv").is_file():
            return _with_settings(text, folder / "runs.csv", folder)
    raise ValueError(
        f"study={text}: has no runs yet in runs/{text} or {COMMITTED / text}. Run it with: "
        f"kinescale run study={text}"
    )


def _with_settings(name: str, table: Path, folder: Path) -> Source:
    """Return the source with the base and recipe of the frozen study, else of one of its name."""
    frozen = folder / "study.yaml"
    if frozen.is_file():
        try:
            found = OmegaConf.to_container(OmegaConf.load(frozen))
            assert isinstance(found, dict)
            if "recipe" not in found:
                raise ValueError(
                    f"study={folder}: its study.yaml has no recipe: it compares arms and has no "
                    "law. Give a study with budgets."
                )
            merged = OmegaConf.merge(OmegaConf.structured(RecipeConfig), found["recipe"])
            recipe = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise ValueError(f"{frozen}: cannot be read ({error}).") from None
        assert isinstance(recipe, RecipeConfig)
        base = list(map(str, found.get("base", [])))
        return Source(name, table, base, recipe, [], beside(table).form)
    if (CONF_DIR / "study" / f"{name}.yaml").is_file():
        study = compose_any([f"study={name}"])
        if isinstance(study, StudyConfig):
            note = f"{folder} has no study.yaml: base and recipe are those of study={name} today."
            form = str(beside(table).values.get("form", study.form.value))
            return Source(name, table, study.base, study.recipe, [note], form)
    note = f"{folder} has no study.yaml: shapes and recipe are this project's defaults."
    return Source(name, table, [], RecipeConfig(), [note], beside(table).form)
