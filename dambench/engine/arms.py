"""The arms of a comparison as runs of their own: random images, all real images, the set under another protocol."""

from dataclasses import replace

import msgspec

from dambench.core import registry
from dambench.core.arms import Arm
from dambench.core.config import Choice, Request
from dambench.core.protocol import same_here
from dambench.engine.job import Job
from dambench.engine.settle import prepare


def arm_job(job: Job, arm: Arm) -> Job | None:
    """The run that measures the accuracies of an arm.

    Args:
        job: of the evaluation that needs them.

    Returns:
        None: the run's protocol is not this version's any more, so that no run can be asked for under it.
    """
    config = job.config
    evaluator = registry.load("evaluators", "accuracy")
    if arm.of == "set":
        plugins = tuple(plugin for plugin in config.plugins if plugin.kind != "evaluators")
        changed = msgspec.structs.replace(
            config,
            protocol=arm.protocol,
            evaluator=Choice(evaluator.name),
            evaluator_version=evaluator.VERSION,
            plugins=plugins,
        )
        return replace(job, config=changed, evaluator=evaluator, evaluator_options=evaluator.Options())
    protocol = same_here(config.protocol)
    if protocol is None:
        return None
    request = Request(
        method=arm.of,
        dataset={"name": config.dataset.name, **config.dataset.options},
        data=config.execution.data or None,
        ipc=config.ipc if arm.of == "random" else None,
        protocol=protocol.name,
        evaluate_on=list(config.evaluate_on),
        eval_repeats=config.eval_repeats,
        seed=config.seed,
        preprocessing=config.preprocessing,
        device=config.execution.device,
        threads=config.execution.threads or None,
    )
    made = prepare(request)
    return replace(made, config=msgspec.structs.replace(made.config, protocol=arm.protocol))
