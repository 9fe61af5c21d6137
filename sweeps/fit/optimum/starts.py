"""Many starts, by variable projection (Golub and Pereyra 1973).

At a fixed shape (exponents, breaks, rates) a form is linear in its amplitudes, so on a grid of
shapes the amplitudes follow from non-negative least squares of the relative errors.
"""

from itertools import combinations

import numpy as np

from sweeps.fit.forms.base import Array, Columns, Form

# Grid points of a shape are few enough to be solved at once: (grid, terms, rows) in memory.
GRID_ELEMENTS = 4_000_000
LEAST_SHARE = 1e-4  # a term at zero has no gradient in its log: start it at this part of the target


def variable_projection(
    form: Form, columns: Columns, target: Array, weights: Array, grid: Array, keep: int
) -> Array:
    """Return starts `(K, S, P)` for `K` weightings of the rows `(K, R)`, best first.

    Minimises sum_i w_i ((L_hat_i - L_i) / L_i)^2 over amplitudes >= 0 at each shape of `grid`
    `(G, S)` and keeps the `keep` best. (Under an outer power p, L^(1/p) is what is linear.)
    """
    parts = max(1, len(grid) * len(target) * len(form.amplitude_index) // GRID_ELEMENTS)
    solved = [
        _amplitudes(form, columns, target, weights, block) for block in np.array_split(grid, parts)
    ]
    amplitudes = np.concatenate([s[0] for s in solved], axis=1)  # (K, G, T)
    saved = np.concatenate([s[1] for s in solved], axis=1)  # (K, G)
    floor = np.concatenate([s[2] for s in solved])  # (G, T)
    starts = np.zeros((len(weights), len(grid), len(form.parameters)))
    starts[:, :, form.shape_index] = grid
    starts[:, :, form.amplitude_index] = np.log(np.maximum(amplitudes, floor))
    order = np.argsort(-saved, axis=1, kind="stable")[:, :keep]
    return np.take_along_axis(starts, order[:, :, None], axis=1)


def _amplitudes(
    form: Form, columns: Columns, target: Array, weights: Array, grid: Array
) -> tuple[Array, Array, Array]:
    """Return amplitudes `(K, G, T)`, what they save `(K, G)` and the least amplitudes `(G, T)`."""
    basis, outer = form.basis(grid, columns)
    shapes = basis / np.exp(np.log(target) / outer[:, None])[:, None]  # (G, T, R)
    num_grid, num_terms, num_rows = shapes.shape
    gram = np.einsum("gtr,gsr->gtsr", shapes, shapes).reshape(-1, num_rows)
    gram = (weights @ gram.T).reshape(len(weights), num_grid, num_terms, num_terms)
    right = (weights @ shapes.reshape(-1, num_rows).T).reshape(len(weights), num_grid, num_terms)
    amplitudes, saved = nonnegative_least_squares(gram, right)
    # The outer power p makes an error of L^(1/p) p times as large in L.
    saved = (saved - weights.sum(axis=1)[:, None]) * outer**2
    return amplitudes, saved, LEAST_SHARE / np.maximum(np.abs(shapes).max(axis=2), 1e-300)


def nonnegative_least_squares(gram: Array, right: Array) -> tuple[Array, Array]:
    """Solve min x^T G x - 2 x^T r over x >= 0 by trying every support (of 5 terms: 31).

    Returns x `(..., T)` and the objective's reduction below x = 0, `(...)`.
    """
    num_terms = right.shape[-1]
    length = np.sqrt(np.maximum(np.einsum("...tt->...t", gram), 1e-300))
    gram = gram / length[..., :, None] / length[..., None, :]
    right = right / length
    best = np.zeros(right.shape)
    saved = np.zeros(right.shape[:-1])
    for size in range(1, num_terms + 1):
        for support in combinations(range(num_terms), size):
            index = list(support)
            block = gram[..., index, :][..., index] + 1e-12 * np.eye(size)
            part = np.linalg.solve(block, right[..., index, None])[..., 0]
            gain = (part * right[..., index]).sum(-1)
            better = (part >= 0).all(-1) & (gain > saved)
            solution = np.zeros(right.shape)
            solution[..., index] = part
            best = np.where(better[..., None], solution, best)
            saved = np.where(better, gain, saved)
    return best / length, saved
