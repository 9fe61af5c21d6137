"""Which law was taken of a table, and how every method foresaw its budgets so far."""

from sweeps.report.inputs.isoflop import Inputs, mapping, records, to_number
from sweeps.report.tables.isoflop import Cell, Table, make_table, number_cell
from sweeps.report.wording import NONE, format_percent, format_signed_percent, format_value

METHODS = {"nearby": "the nearest budgets"}


def method_of(name: object) -> str:
    """Return what a method of the record is called in words."""
    return METHODS.get(str(name), str(name))


def rolling_table(inputs: Inputs) -> Table | None:
    """Return the record of each method, the one that erred least first; None without budgets."""
    rows = []
    for record in records(inputs.law.get("rolling_origin")):
        count = to_number(record.get("forecasts"))
        keys = ("mean_absolute_error", "next_budget_error")
        mean, following = (to_number(record.get(key)) for key in keys)
        bias, worst = (to_number(record.get(key)) for key in ("bias", "worst"))
        rows.append(
            [
                Cell(method_of(record.get("method"))),
                number_cell(count, f"{count:.0f}"),
                number_cell(mean, format_percent(mean, 2)),
                number_cell(following, format_percent(following, 2)),
                number_cell(bias, format_signed_percent(bias)),
                number_cell(worst, format_signed_percent(worst)),
            ]
        )
    columns = ("method", "forecasts", "mean error", "of the next budget", "bias", "worst")
    caption = "Fitted to fewer budgets, asked for the best loss of larger ones"
    return make_table(caption, columns, rows) if rows else None


def forms_table(inputs: Inputs) -> Table | None:
    """Return every form with its BIC and whether its residuals follow their budget."""
    forms = mapping(mapping(inputs.law.get("choice")).get("forms"))
    if not forms:
        return None
    least = min(to_number(mapping(item).get("bic")) for item in forms.values())
    rows = []
    for name, item in forms.items():
        above, p = to_number(mapping(item).get("bic")) - least, to_number(item.get("structure_p"))
        said = NONE if p != p else "they follow it" if p < 0.05 else "no sign of it"
        count = to_number(item.get("parameters"))
        rows.append(
            [
                Cell(name),
                number_cell(count, f"{count:.0f}"),
                number_cell(above, f"{above:.1f}"),
                number_cell(p, format_value(p, 2)),
                Cell(said),
            ]
        )
    columns = ("form", "coefficients", "BIC above the least", "p", "residuals and budget")
    return make_table("The forms on all rows", columns, rows)
