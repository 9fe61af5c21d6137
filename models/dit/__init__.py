"""The diffusion transformer over packs: blocks, modulation, positions, roles, counts."""
