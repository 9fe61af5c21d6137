"""The checklist of a scaling law, answered from the study's own files.

Its questions are those that published laws most often leave open: Li et al. 2025, "(Mis)Fitting: A
Survey of Scaling Laws" (arXiv:2502.18969), whose list of what to report this follows; whether each
point decays to its own end, and what D counts, are from Hoffmann et al. 2022 and Muennighoff et al.
2023. A file that does not say gives "not known", never a guess.
"""

from collections import Counter
from collections.abc import Callable

from sweeps.report.checklist import law, runs
from sweeps.report.checklist.answers import Answer, Found, Status
from sweeps.report.inputs.isoflop import Inputs


def checklist(inputs: Inputs) -> list[Answer]:
    """Return the items in the order in which a reader needs them."""
    items: list[tuple[str, str, Callable[[Inputs], Found]]] = [
        ("Form, objective, optimiser", "coefficients", law.form_of_law),
        ("Convergence of the fit", "coefficients", law.certificate),
        ("Coefficients identified", "coefficients", law.identified),
        ("What counts as parameters", "runs", runs.counted_params),
        ("What counts as FLOPs", "runs", runs.counted_flops),
        ("What counts as tokens", "data", runs.counted_tokens),
        ("Repetition of data", "data", runs.repetition),
        ("Runs excluded", "excluded", runs.exclusions),
        ("Learning-rate schedule", "reproduce", runs.schedules),
        ("Hyper-parameters", "reproduce", runs.recipe),
        ("Noise floor over seeds", "noise", runs.seed_noise),
        ("Noise floor over validation draws", "noise", runs.draw_noise),
        ("Spikes of the loss", "runs", runs.spikes),
        ("Residuals", "residuals", law.worst_residuals),
        ("Held-out error", "held-out", law.held_out),
        ("Extrapolation of each prediction", "frontier", law.extrapolation),
        ("Hardware and software", "environment", runs.hardware),
    ]
    return [Answer(question, *answer(inputs), section) for question, section, answer in items]


def law_checklist(inputs: Inputs) -> list[Answer]:
    """Return what a table alone can answer: how its law was fitted and how it fits."""
    items: list[tuple[str, Callable[[Inputs], Found]]] = [
        ("Form, objective, optimiser", law.form_of_law),
        ("Convergence of the fit", law.certificate),
        ("Coefficients identified", law.identified),
        ("Residuals", law.worst_residuals),
    ]
    return [Answer(question, *answer(inputs), "coefficients") for question, answer in items]


def summary(answers: list[Answer]) -> str:
    """Count the answers by their standing, in words."""
    counts = Counter(answer.status for answer in answers)
    return ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
