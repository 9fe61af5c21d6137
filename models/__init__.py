"""What is computed: one device, no clock, no files."""
