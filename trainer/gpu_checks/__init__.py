"""What ``python -m trainer.gpu_checks.check`` does, one file per group of checks."""
