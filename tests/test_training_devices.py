"""Training on several devices: in a process of its own, with four virtual ones."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

SCRIPT = """
import sys
import jax
from bayesdownscale.data.read import open_fields
from bayesdownscale.prior.network import UNetConfig
from bayesdownscale.prior.trained import train_prior
from bayesdownscale.prior.training import TrainingConfig

assert len(jax.devices()) == 4
network = UNetConfig(widths=(4,), blocks=1, embedding=8, heads=2, dropout=0.1)
fields = open_fields(sys.argv[1])
for batch in (4, 6):
    training = TrainingConfig(steps=8, batch=batch, warmup=2, validate_every=4)
    train_prior(fields, sys.argv[2] + str(batch), window=3, n_modes=5, network=network, training=training)
"""


@pytest.mark.slow
def test_four_devices_learn_what_one_learns(toy_fields, trained_folder, tmp_path):
    """The same batches and noise, so the same weights but for the order of sums; a batch that four devices cannot
    share is refused in one sentence."""
    toy_fields.to_dataset().to_netcdf(tmp_path / "toy.nc")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "toy.nc"), str(tmp_path / "prior")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert "expected windows that 4 devices can share, got 6 at once" in done.stderr
    one, four = (load_file(next(folder.glob("prior*.safetensors"))) for folder in (trained_folder, tmp_path / "prior4"))
    for name, weights in one.items():
        np.testing.assert_allclose(four[name], weights, rtol=2e-3, atol=2e-5, err_msg=name)
    loss = lambda folder: json.loads((folder / "prior.json").read_text())["provenance"]["validation_loss"]
    np.testing.assert_allclose(loss(tmp_path / "prior4"), loss(trained_folder), rtol=1e-4)
