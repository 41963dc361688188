"""p(x): noise levels, exact Gaussian priors, the network, windows, training, checkpoints."""
