"""Run ``python -m sweeps.ladder``."""

from data.shell import run_module

if __name__ == "__main__":
    run_module("sweeps.ladder.table")
