"""Is the posterior right? Scores, calibration, figures and the report."""
