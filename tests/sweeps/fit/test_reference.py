"""Published fits are reached, and what their data do not determine is flagged.

The measurements lie beside the checkout; without them these tests skip.
"""

import numpy as np
import pytest

from benchmarks import fit, fit_data
from sweeps.fit.forms.catalogue import CHINCHILLA, FORMS
from sweeps.fit.optimum.profile import certify
from sweeps.fit.optimum.solve import fit_form
from sweeps.fit.trust.bootstrap import bootstrap_fit
from sweeps.fit.trust.identified import identified

needs_data = pytest.mark.skipif(not fit_data.present(), reason=fit_data.ABSENT)


def is_timing(bar):
    return "seconds" in bar.name


@pytest.mark.heavy
@needs_data
@pytest.mark.parametrize("group", ["epoch", "porian", "openlm", "datablations", "dit"])
def test_published_bars_are_reached(group):
    missed = [b for b in fit.GROUPS[group]() if b.reached is False and not is_timing(b)]
    assert not missed


@pytest.mark.heavy
@needs_data
def test_gemstones_objectives_are_at_most_the_published_ones():
    rows = fit_data.gemstones()
    assert len(rows) == 20
    for name, form, columns, loss, published in rows:
        used = {c: columns[c] for c in FORMS[form].columns}
        found = fit_form(FORMS[form], used, loss)
        assert found.objective <= published, name


@pytest.mark.heavy
@needs_data
def test_an_outer_power_never_fits_worse_than_chinchilla():
    tables = [fit_data.epoch()]
    for _, budgets in fit_data.porian()[::3]:
        params = np.concatenate([n for _, n, _ in budgets])
        flops = np.repeat([c for c, _, _ in budgets], [len(n) for _, n, _ in budgets])
        loss = np.concatenate([y for _, _, y in budgets])
        tables.append(({"params": params, "tokens": flops / 6 / params}, loss))
    for _, form, columns, loss, _ in fit_data.gemstones():
        if form == "chinchilla" and len(loss) < 100:
            tables.append(({c: columns[c] for c in FORMS["skaling"].columns}, loss))
    assert len(tables) == 8
    for columns, loss in tables:
        found = fit_form(FORMS["skaling"], columns, loss)
        assert found.objective <= fit_form(CHINCHILLA, columns, loss).objective
        assert found.converged


@pytest.mark.heavy
@needs_data
def test_degenerate_gemstones_fits_are_said_to_be_so():
    rows = {(name, form): rest for name, form, *rest in fit_data.gemstones()}
    for key, coefficient in (
        (("hot_100b+_512x", "chinchilla"), "alpha"),
        (("hot_100b+", "width_depth"), "E"),
    ):
        columns, loss, _ = rows[key]
        form = FORMS[key[1]]
        found, profiles = certify(fit_form(form, {c: columns[c] for c in form.columns}, loss), 0.95)
        boot = bootstrap_fit(found, range(len(loss)), 60, 0.95)
        assert not identified(found, boot, profiles)[coefficient]["ok"], key


@needs_data
def test_epoch_starts_all_agree():
    columns, loss = fit_data.epoch()
    found = fit_form(CHINCHILLA, columns, loss)
    assert len(loss) == 240
    assert found.converged
    assert found.starts_agreeing == found.starts_tried


@needs_data
@pytest.mark.slow
def test_unseen_schedules_are_predicted_as_well_as_published():
    missed = [b for b in fit.curves_bars() if b.reached is False]
    # 0.00465 where 0.00376 is published: docs/fit.md.
    assert [b.name for b in missed] == ["curves: 25M tissue, by left-out curves"]


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    found = fit.coverage()
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


def test_coverage_counts_what_it_says():
    found = fit.coverage(replicates=3, resamples=20)
    assert set(found) == {*fit.PLANTED, "loss beyond"}
    assert all(np.isclose(3 * share, round(3 * share)) for share in found.values())
