"""Run ``python -m trainer.generate``."""

import sys

from trainer.generate.generate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
