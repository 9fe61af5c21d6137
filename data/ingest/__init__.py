"""Foreign files in, sources out: what a folder, a list or a tar holds."""
