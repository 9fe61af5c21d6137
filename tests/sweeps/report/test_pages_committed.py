"""What the pages of committed studies, README.md and docs/measured.md print is in law.json."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sweeps.fit.describe import describe
from sweeps.report.inputs.isoflop import read_inputs
from sweeps.report.pages.isoflop import render_page

ROOT = Path(__file__).parents[3]
STUDIES = ROOT / "docs" / "studies"
COMMITTED = sorted(path.parent.name for path in STUDIES.glob("*/law.json"))
POWERS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "%": 0.01}
NUMBER = re.compile(
    r"(?<![\w.])([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?: ?([kMBT%])(?!\w))?"
)
BARE_POWER = re.compile(r"(?<![×\d])10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")


class Tables(HTMLParser):
    """Collect a page's tables by caption: rows of cells as text; and its first heading."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.rows, self.text, self.heading = {}, [], None, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.rows = []
        elif tag == "tr":
            self.rows.append([])
        if tag in ("caption", "th", "td", "h1"):
            self.text = ""
        elif tag == "sup" and self.text is not None:
            self.text += "^"

    def handle_data(self, data):
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag):
        if tag == "caption":
            self.tables[self.text.strip()] = self.rows
        elif tag in ("th", "td") and self.rows:
            self.rows[-1].append(self.text.strip().replace("\u00a0", " "))
        elif tag == "h1":
            self.heading = self.text
        if tag in ("caption", "th", "td", "h1"):
            self.text = None


def numbers(text):
    """Return (value, half a unit of the last digit, whether it has decimals) of each number."""
    text = text.replace("−", "-").replace("\u00a0", " ")
    text = BARE_POWER.sub(lambda found: f"1e{found[1].translate(POWERS)}", text)
    found = []
    for digits, power, unit in NUMBER.findall(text):
        scale = UNITS[unit] * 10.0 ** int(power.translate(POWERS) or 0)
        mantissa, _, exponent = digits.partition("e")
        decimals = len(mantissa.partition(".")[2])
        unit_of_last = 10.0 ** (int(exponent or 0) - decimals)
        found.append((float(digits) * scale, 0.5 * unit_of_last * scale, decimals > 0))
    return found


def assert_prints(text, *values):
    """Assert that a text holds these numbers in this order, to the digits that it prints."""
    found = numbers(text)
    assert len(found) == len(values), (text, values)
    for (value, half, exact), true in zip(found, values, strict=True):
        # Zeros at an end are not printed: 43 k stands for 43.0 k, 5×10¹² for 5.00×10¹².
        allowed = 1.001 * half if exact else min(half, 5.01e-3 * abs(true))
        assert abs(value - true) <= allowed, (text, true)


@pytest.fixture(scope="module", params=COMMITTED)
def study(request):
    """Return a committed study's law and its page, drawn again from its folder."""
    folder = STUDIES / request.param
    law = json.loads((folder / "law.json").read_text(encoding="utf-8"))
    return law, Tables(render_page(read_inputs(folder), {}))


def table(study, start):
    (found,) = [rows for name, rows in study[1].tables.items() if name.startswith(start)]
    return [row for row in found if row]


@pytest.mark.heavy
def test_the_heading_is_the_law_s(study):
    law, page = study
    three, held = law["exponents"]["approach_3"], law["held_out"]
    low, high = three["interval"]
    heading = re.sub(r"90.% interval", "interval", page.heading).replace("^", " ")
    assert_prints(
        heading, three["params"], low, high, 1 - three["params"], 1 - high, 1 - low,
        held["budget"], held["predicted"], held["actual"], held["relative_error"], held["skill"],
    )  # fmt: skip


@pytest.mark.heavy
def test_the_coefficients_are_the_law_s(study):
    law, _ = study
    rows = table(study, "Coefficients of")[1:]
    assert [row[0] for row in rows] == list(law["coefficients"])
    for name, value, interval, _ in rows:
        assert_prints(value, law["coefficients"][name])
        assert_prints(interval, *law["intervals"][name])


def test_the_frontier_and_the_minima_are_the_law_s(study):
    law, _ = study
    rows = table(study, "The frontier")[1:]
    for row, point in zip(rows, law["frontier"], strict=True):
        assert_prints(row[0], point["flops"])
        for i, key in enumerate(("params", "tokens", "loss")):
            assert_prints(row[1 + 2 * i], point[key])
            assert_prints(row[2 + 2 * i], *point["intervals"][key])
    for row, point in zip(table(study, "Minima of")[1:], law["isoflop"], strict=True):
        assert_prints(row[0], point["budget"])
        if point["interior"]:
            assert_prints(row[1], point["params"])
            assert_prints(row[2], *point["interval"])
            assert_prints(row[4], point["loss"])
        else:
            assert row[1:] == ["–", "–", "–", "–", point["reason"]]


def test_the_held_out_test_is_the_law_s(study):
    law, _ = study
    held, rows = law["held_out"], dict(table(study, "Held-out test"))
    assert_prints(rows["Predicted loss"], held["predicted"])
    assert_prints(rows["Measured loss"], held["actual"])
    assert_prints(rows["Error, predicted against measured"], held["relative_error"])
    assert_prints(rows["Noise floor: seeds and validation draws together"], held["noise_floor"])
    assert_prints(rows["Skill against “nothing improves”"], held["skill"])
    (interval,) = [text for name, text in rows.items() if "interval" in name]
    assert_prints(interval, *held["interval"])
    line = rows["By a power of compute through the budgets’ best losses"]
    assert_prints(line, held["line_predicted"], held["line_relative_error"])
    for form, other in held["other_forms"].items():
        text = rows[f"By the form {form}, from the same runs"]
        assert_prints(text, other["predicted"], other["relative_error"])
    for row, run in zip(table(study, "Each held-out run")[1:], held["runs"], strict=True):
        assert row[0] == run["name"]
        for text, key in zip(
            row[1:5], ("params", "predicted", "actual", "relative_error"), strict=True
        ):
            assert_prints(text, run[key])


def test_the_residuals_and_exponents_are_the_law_s(study):
    law, _ = study
    stated = {row["name"]: row for row in law["residuals"]}
    for name, _, params, tokens, loss, residual in table(study, "The 8 worst of")[1:]:
        row = stated[name]
        assert_prints(params, row["params"])
        assert_prints(tokens, row["tokens"])
        assert_prints(loss, row["loss"])
        assert_prints(residual, -row["log_residual"])
    ours = [row for row in table(study, "N* ∝")[1:] if row[0] == "these runs"]
    for number, row in enumerate(ours, 1):
        found = law["exponents"][f"approach_{number}"]
        assert_prints(row[2], found["params"])
        assert_prints(row[3], *found["interval"])


def law_of(name):
    return json.loads((STUDIES / name / "law.json").read_text(encoding="utf-8"))


def test_the_readme_shows_what_its_command_prints():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme[readme.index("form=kaplan level=0.9") :].partition("```")[0].splitlines()
    said, *lines = [line for line in block if line != "..."]
    assert said.endswith(": from docs/studies/cpu_isoflop/study.yaml")
    printed = describe(law_of("cpu_isoflop")).splitlines()
    assert [line for line in lines if line not in printed] == []


def test_the_prose_of_readme_and_measurements_is_the_law_s():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    law, demo = law_of("cpu_isoflop"), law_of("demo")

    def says(page, pattern, *values):
        (found,) = re.findall(pattern, page)
        texts = found if isinstance(found, tuple) else (found,)
        for text, value in zip(texts, values, strict=True):
            assert_prints(text, value)

    held, three = law["held_out"], law["exponents"]["approach_3"]
    error, forms = abs(held["relative_error"]), held["other_forms"]
    says(readme, r"predicted it \(diamond\) to ([\d.]+ %)", error)
    says(readme, r"4x beyond its fit ([\d.]+ %) too low, .* at ([\d.]+ %) noise", error,
         held["noise_floor"])  # fmt: skip
    says(readme, r"form misses that budget by \+([\d.]+ %), a power of compute by (-[\d.]+ %)",
         forms["chinchilla"]["relative_error"], held["line_relative_error"])  # fmt: skip
    says(measured, r"grows as C\^([\d.]+) by the law \(90 % interval ([\d.]+) to ([\d.]+)\)",
         three["params"], *three["interval"])  # fmt: skip
    says(measured, r"predicts a loss of ([\d.]+) for it, and ([\d.]+) is measured: ([\d.]+ %) too",
         held["predicted"], held["actual"], error)  # fmt: skip
    says(measured, r"interval of that prediction, ([\d.]+) to ([\d.]+)\.", *held["interval"])
    says(measured, r"skill of that prediction is ([\d.]+), .* floor is ([\d.]+ %)", held["skill"],
         held["noise_floor"])  # fmt: skip
    says(measured, r"same budget ([\d.]+ %) too high, with tied .* ([\d.]+ %), .* form ([\d.]+ %)",
         *(forms[key]["relative_error"] for key in
           ("chinchilla", "chinchilla_tied", "overtraining")))  # fmt: skip
    says(measured, r"predicts it ([\d.]+ %) too low, with a skill of ([\d.]+)",
         abs(held["line_relative_error"]), held["line_skill"])  # fmt: skip
    held, three = demo["held_out"], demo["exponents"]["approach_3"]
    says(measured, r"fitted to (\d+) runs\. N\\\* grows as C\^([\d.]+) \(90 % interval ([\d.]+) to "
         r"([\d.]+)\) and D\\\* as C\^([\d.]+)", len(demo["residuals"]), three["params"],
         *three["interval"], 1 - three["params"])  # fmt: skip
    says(measured, r"lies ([\d.]+)x beyond the fit\. A loss of ([\d.]+) is predicted and ([\d.]+) "
         r"is measured: ([\d.]+ %) too high, .* skill of ([\d.]+)\.", held["extrapolation_factor"],
         held["predicted"], held["actual"], held["relative_error"], held["skill"])  # fmt: skip
    says(measured, r"that budget ([\d.]+ %) too high, a power of compute ([\d.]+ %) too high",
         held["other_forms"]["kaplan"]["relative_error"], held["line_relative_error"])  # fmt: skip


def test_weightings_of_a_study_that_registered_none_are_the_law_s_and_no_prediction():
    folder = STUDIES / "cpu_isoflop"
    text = render_page(read_inputs(folder), {})
    law, found = law_of("cpu_isoflop"), Tables(text).tables
    (rows,) = [rows for name, rows in found.items() if name.startswith("The law under other")]
    _, own, *others = [row for row in rows if row]
    assert own[0] == "uniform (the study's)"
    assert_prints(own[1], law["exponents"]["approach_3"]["params"])
    assert_prints(own[3], law["held_out"]["relative_error"])
    for text_of, value in zip(own[5:9], law["coefficients"].values(), strict=True):
        assert_prints(text_of, value)
    assert sum("y_axis.weighting=" in row[-1] for row in others) == 2  # strata it lacks
    assert "they predict nothing" in text
    assert "(registered)" not in text
