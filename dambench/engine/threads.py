"""The threads of a run, chosen from its configuration and the cores that it may use."""

import msgspec

from dambench import networks
from dambench.core import cores
from dambench.core.config import Execution, RunConfig
from dambench.core.events import DataCard
from dambench.training import threads


def with_threads(config: RunConfig, card: DataCard, processes: int = 1) -> Execution:
    """Choose how many threads compute, and how many of them share an operation of each network.

    Args:
        config: a settled run, whose execution says how many threads were asked for, if any were.
        processes: that share the run and the cores.
    """
    where = config.execution
    usable = where.threads or max(1, cores.usable() // processes)
    if where.device != "cpu":
        return msgspec.structs.replace(where, cores=usable, shared_by=where.threads, network_threads={})
    whole = config.ipc is None
    images = sum(card.train_counts) if whole else (config.ipc or 1) * len(card.classes)
    images *= int(config.method.options.get("factor", 1)) ** 2
    at_once = where.real_chunk or images
    matched = 0
    if config.network:
        # The real images go through the network in micro-batches side by side, unless it is compiled.
        matched = networks.multiplications(config.network, card) * (at_once if where.compiled else min(at_once, images))
    batch, trained = min(config.protocol.batch, images), config.eval_repeats * len(config.evaluate_on)
    return msgspec.structs.replace(
        where,
        cores=usable,
        shared_by=threads.choose(matched, usable),
        network_threads={
            name: threads.choose(networks.multiplications(name, card) * batch, usable, trained)
            for name in config.evaluate_on
        },
    )
