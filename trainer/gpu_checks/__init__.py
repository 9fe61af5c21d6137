"""What ``python -m trainer.gpu_checks`` does, one file per group of checks."""
