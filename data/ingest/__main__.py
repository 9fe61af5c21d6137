"""Run ``python -m data.ingest``."""

from data.shell import run_module

if __name__ == "__main__":
    run_module("data.ingest.ingest")
