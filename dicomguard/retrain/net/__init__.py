"""Training of the detector: torch lives here and in analyze/net."""
