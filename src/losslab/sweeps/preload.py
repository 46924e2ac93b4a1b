"""Imports of the fork server, so that a job starts with everything in memory.

Only imports. A server that computed, with more than one thread, would leave its children a pool of threads that they do
not have, and their first parallel product would wait for it for ever.
"""

import gc
import signal

signal.signal(
    signal.SIGINT, signal.SIG_IGN
)  # a terminal's Ctrl-C is the launcher's; this prints no traceback meanwhile
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # as its parent left it
try:
    import losslab.sweeps.job
    import losslab.sweeps.planning
    import losslab.training.process.worker  # noqa: F401
except ImportError as error:  # the server would pass over it, and every job import everything again
    raise RuntimeError(f"losslab cannot be imported: {error}") from error

gc.freeze()  # a job's garbage collections would walk over all of this, and so copy its memory
