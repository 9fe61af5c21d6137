"""Run ``python -m trainer.gpu_checks``."""

import sys

from trainer.gpu_checks.check import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
