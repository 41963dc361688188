"""p(x, theta | y): guidance (one method a file), samplers, results."""
