"""Run ``python -m data.demo``."""

import sys

from data.demo.demo import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
