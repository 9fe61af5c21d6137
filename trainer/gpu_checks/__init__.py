"""What ``python -m trainer.gpu_check`` does, one file per group of checks."""
