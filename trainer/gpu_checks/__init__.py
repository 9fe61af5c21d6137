"""What ``kinescale gpu-check`` does, one file per group of checks."""
