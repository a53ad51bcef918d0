"""The engine: it settles a request into a job, and runs a job as a stream of events."""

from dambench.core.errors import Diverged
from dambench.engine.job import Job
from dambench.engine.loop import StopRun, run
from dambench.engine.settle import evaluation, prepare, reopen
from dambench.engine.sharing import resumed

__all__ = ["Diverged", "Job", "StopRun", "evaluation", "prepare", "reopen", "resumed", "run"]
