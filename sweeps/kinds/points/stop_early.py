"""Which runs of an isoFLOP curve cannot change its minimum any more.

The rule: the sizes of one curve are trained from its middle outwards, one ring at a time. A size is
left out when the two sizes before it on its side both lie above the best run so far by more than
``MARGIN`` standard deviations of the difference of two runs, and rise towards it. The minimum is
then bracketed on that side: where loss has one valley in log params, sizes farther out are worse,
and at least two bad sizes stay on each side of the parabola that is fitted. The rule needs a noise
floor from runs with other seeds (the upper end of its interval is taken), and leaves out nothing
without one. What it can cost is known: a
parabola over fewer sizes has a wider interval, never a moved minimum beyond it.
"""

import math
from collections.abc import Sequence

MARGIN = 2.0  # standard deviations of a difference: 95 % of equal pairs lie closer
BEYOND = 2  # worse sizes on a side before the rest of that side is left out


def waves(count: int) -> list[list[int]]:
    """Return the numbers of ``count`` sizes in rings from the middle: all of a ring run at once.

    The first holds the middle and two on each side, the least that the rule can judge.
    """
    middle = (count - 1) / 2
    order = sorted(range(count), key=lambda i: (abs(i - middle), i))
    first = 2 * BEYOND + 1
    rest = order[first:]
    return [sorted(order[:first])] + [sorted(rest[i : i + 2]) for i in range(0, len(rest), 2)]


def cannot_matter(number: int, losses: Sequence[float | None], noise: float | None) -> bool:
    """Say whether size ``number`` of a curve can be left out.

    losses: of the sizes in rising order, None where a run is not finished. noise: relative standard
    deviation over seeds, None where it is not known.
    """
    known = [loss for loss in losses if loss is not None]
    if noise is None or not known:
        return False
    best = min(known)
    place = losses.index(best)
    if number == place:
        return False
    step = 1 if number > place else -1
    between = [losses[i] for i in range(number - step, place, -step)]
    near = between[:BEYOND]  # the closest to ``number`` first
    if len(near) < BEYOND or any(loss is None for loss in near):
        return False
    bound = best * math.exp(MARGIN * math.sqrt(2) * noise)
    values = [loss for loss in near if loss is not None]
    return all(loss > bound for loss in values) and values == sorted(values, reverse=True)
