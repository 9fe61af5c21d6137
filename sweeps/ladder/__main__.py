"""Run ``python -m sweeps.ladder``."""

import sys

from launch.pipe import end_with_reader
from sweeps.ladder.table import main

if __name__ == "__main__":
    end_with_reader()
    sys.exit(main(sys.argv[1:]))
