"""Run by test_ensemble_devices.py: draw two members of one span on a mesh and save them, or (OUT.zarr) an ensemble.

    python ensemble_on_devices.py OUT MEMBERS WINDOWS [PROCESS PORT]

GUIDANCE in the environment names the guidance; FAILURE what happens to the first process once two jobs are done: its
disk is "full", or it is "killed".
"""

import os
import resource
import signal
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

from bayesdownscale.ensemble.guide import GUIDANCE  # noqa: E402
from bayesdownscale.ensemble.plan import Plan  # noqa: E402
from bayesdownscale.ensemble.run import Ensemble  # noqa: E402
from bayesdownscale.ensemble.solve import Solver  # noqa: E402

guidance = GUIDANCE[os.environ.get("GUIDANCE", "moment_matching")]
heard = []


def hear(done: int) -> None:
    heard.append(done)
    if done == 2 and jax.process_index() == 0:
        if os.environ.get("FAILURE") == "full":  # no file may hold more than 100 bytes
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        elif os.environ.get("FAILURE") == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


if out.endswith(".zarr"):
    devices = None if shape == (1, 1) else shape[1]
    run = Ensemble(ensembles.build, out, members=2, devices=devices, guidance=guidance, **ensembles.SPAN)
    damaged = run.run(on_done=hear)
    print(heard, [tuple(job) for job in damaged])
    sys.exit()
seen = ensembles.hours(33)[:: ensembles.EVERY]
plan = Plan.of(seen, np.timedelta64(1, "h"), ensembles.WINDOW, 2, np.timedelta64(16, "h"), 8, 4)
devices = None if shape == (1, 1) else shape
solver = Solver(ensembles.problem(33), plan, steps=4, seed=0, devices=devices, guidance=guidance)
drawn = solver([0, 1], 1)
if devices is not None:
    assert len(drawn.sharding.device_set) == shape[0] * shape[1]
np.save(out, np.asarray(drawn))
