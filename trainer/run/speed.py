"""How fast a run is now; torch-free."""


class Speed:
    """Seconds a step, and counts a second, since the last look.

    seconds: training time so far; counts: what else grows with it, such as tokens.
    """

    def __init__(self, step: int, seconds: float, **counts: float) -> None:
        self._step, self._seconds, self._counts = step, seconds, counts

    def look(self, step: int, seconds: float, **counts: float) -> dict[str, float]:
        """Return ``step_seconds`` and ``NAME_per_second`` of each count, and begin anew."""
        steps, passed = step - self._step, max(seconds - self._seconds, 1e-9)
        grown = {name: count - self._counts.get(name, 0.0) for name, count in counts.items()}
        self._step, self._seconds, self._counts = step, seconds, counts
        found = {"step_seconds": passed / max(steps, 1)}
        return found | {f"{name}_per_second": count / passed for name, count in grown.items()}
