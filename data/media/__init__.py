"""One film or picture: probed, cut into shots, filtered, scaled and encoded."""
