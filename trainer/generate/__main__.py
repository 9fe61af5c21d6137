"""Run ``python -m trainer.generate``."""

from data.shell import run_module

if __name__ == "__main__":
    run_module("trainer.generate.generate")
