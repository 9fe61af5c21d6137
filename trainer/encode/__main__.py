"""Run ``python -m trainer.encode``."""

from data.shell import run_module

if __name__ == "__main__":
    run_module("trainer.encode.encode")
