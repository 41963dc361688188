"""The twin climate: an embedded simulator of weather with known truth, and a biased coarse model of it."""
