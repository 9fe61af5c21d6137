"""How one model is laid out over processes; the only place that touches DeepSpeed."""
