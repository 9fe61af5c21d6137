"""Run ``python -m trainer.encode``."""

import sys

from trainer.encode.encode import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
