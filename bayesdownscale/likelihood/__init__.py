"""p(y | x, theta): linear operators with adjoints and the reading of NumPyro programs."""
