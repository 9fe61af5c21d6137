"""What a run will need before it starts: memory, time, disk, and the layouts that are best."""
