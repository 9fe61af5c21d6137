"""Run ``python -m data.demo``."""

from data.shell import run_module

if __name__ == "__main__":
    run_module("data.demo.demo")
