"""Run by test_ensemble_devices.py: draw two members of one span on a mesh and save them, or (OUT.zarr) an ensemble.

    python ensemble_on_devices.py OUT MEMBERS WINDOWS [PROCESS PORT]
"""

import os
import sys

out, members, windows, *distributed = sys.argv[1:]
shape = int(members), int(windows)
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402

if distributed:
    process, port = distributed
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
else:
    jax.config.update("jax_num_cpu_devices", 8)

import ensembles  # noqa: E402
import numpy as np  # noqa: E402

from bayesdownscale.ensemble.plan import Plan  # noqa: E402
from bayesdownscale.ensemble.run import Ensemble  # noqa: E402
from bayesdownscale.ensemble.solve import Solver  # noqa: E402

if out.endswith(".zarr"):
    run = Ensemble(ensembles.build, out, members=2, devices=None if shape == (1, 1) else shape[1], **ensembles.SPAN)
    heard = []
    damaged = run.run(on_done=heard.append)
    print(heard, [tuple(job) for job in damaged])
    sys.exit()
seen = ensembles.hours(33)[:: ensembles.EVERY]
plan = Plan.of(seen, np.timedelta64(1, "h"), ensembles.WINDOW, 2, np.timedelta64(16, "h"), 8, 4)
devices = None if shape == (1, 1) else shape
solver = Solver(ensembles.problem(33), plan, steps=4, seed=0, devices=devices)
drawn = solver([0, 1], 1)
if devices is not None:
    assert len(drawn.sharding.device_set) == shape[0] * shape[1]
np.save(out, np.asarray(drawn))
