"""How far a fit can be believed: resamples, identifiability, odd rows."""
