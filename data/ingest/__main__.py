"""Run ``python -m data.ingest``."""

import sys

from data.ingest.ingest import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
