"""The life of any run: lease, heartbeat, attempts, metrics."""
