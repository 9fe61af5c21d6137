"""Run ``python -m trainer.gpu_checks``."""

from data.shell import run_module

if __name__ == "__main__":
    run_module("trainer.gpu_checks.check")
