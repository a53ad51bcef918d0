"""Job: a request that was settled, and what its method and its evaluator are given and yield."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from torch import Tensor

from dambench import datasets, networks
from dambench.core.config import Options, Recipe, RunConfig
from dambench.core.contracts import Evaluator, Method
from dambench.core.errors import BadInput
from dambench.core.events import DataCard, Measured
from dambench.datasets import Parts
from dambench.evaluators import Context, Finding, Recall, forget
from dambench.training.policy import Policy
from dambench.training.problem import Notice, Problem, RealSet, Seeds, State, Step, SyntheticSet
from dambench.training.ranks import Ranks


@dataclass(frozen=True)
class Job:
    """A run that can begin: nothing is left open, and its data are ready."""

    config: RunConfig
    card: DataCard
    recipe: Recipe | None
    method: Method
    options: Options
    evaluator: Evaluator
    evaluator_options: Options
    policy: Policy
    changed_options: dict[str, Any]
    """The method's options that differ from the recipe's."""
    changed_settings: dict[str, Any]
    """Those of `preprocessing`, `network` and `precision` that differ, and `recipe`, its name, if not the default."""
    notes: list[str]
    """What was asked for and has no effect."""

    @property
    def overrides(self) -> dict[str, Any]:
        """All that differs from the recipe, as a run keeps it."""
        return self.changed_options | self.changed_settings

    def with_seed(self, seed: int) -> "Job":
        """The same run under another seed, on which nothing else that was settled depends."""
        return replace(self, config=msgspec.structs.replace(self.config, seed=seed))


def open_parts(job: Job) -> Parts:
    """Open the real images to make a set of, and those to test it on, on the job's device."""
    config = job.config
    return datasets.open_parts(job.card, job.policy.device, config.preprocessing, config.held_out)


def open_problem(job: Job, real: RealSet, ranks: Ranks | None = None) -> Problem:
    """Make what the job's method is given.

    Args:
        ranks: the processes that share the run, if several do.
    """
    return Problem(
        real=real,
        card=job.card,
        ipc=job.config.ipc or 0,
        seeds=Seeds(job.config.seed),
        build_network=lambda: networks.build(job.config.network, job.card),
        held_out=job.config.held_out.sha256 if job.config.held_out else "",
        network=job.config.network,
        policy=job.policy,
        ranks=ranks,
    )


def starting_images(job: Job, real: RealSet) -> Tensor | None:
    """The places of the real images that the job's method starts from, or is content with; None: it does not."""
    method, options = job.config.method.name, job.config.method.options
    starts = method == "random" or options.get("init") == "real"
    if not starts or job.config.ipc is None or options.get("factor", 1) != 1:
        return None
    problem = open_problem(job, real)
    return problem.subset_places().flatten().to(real.images.device)


def distilled(job: Job, problem: Problem, resume: State | None = None) -> Iterator[Step | Notice]:
    """Run the job's method.

    Raises:
        BadInput: it is from outside, and yields something else.
    """
    for event in job.method.distill(problem, job.options, resume):
        if not isinstance(event, Step | Notice):
            kind = type(event).__name__
            raise BadInput(f"The method {job.method.name} gave a {kind} where a Step or Progressed is due.")
        yield event


def measured(job: Job, context: Context, done: Collection[tuple[str, int]] = ()) -> Iterator[Finding]:
    """Run the job's evaluator.

    Raises:
        BadInput: it is from outside, and gives something else.
    """
    name, metrics = job.evaluator.name, job.evaluator.metrics(job.card, job.evaluator_options)
    for event in job.evaluator.evaluate(context, job.evaluator_options, done):
        if not isinstance(event, Finding):
            kind = type(event).__name__
            raise BadInput(f"The evaluator {name} gave a {kind} where a Measured or Progressed is due.")
        if isinstance(event, Measured) and (unnamed := event.values.keys() - metrics.keys()):
            raise BadInput(f"The evaluator {name} measured {', '.join(sorted(unnamed))}, which its METRICS lack.")
        yield event


def evaluation_context(
    job: Job,
    synthetic: SyntheticSet,
    parts: Parts,
    *,
    set_sha256: str,
    iteration: int,
    final: bool,
    stack: int = 0,
    recall: Recall = forget,
    dry_run: bool = False,
) -> Context:
    """Make what the job's evaluator is given.

    Args:
        stack: networks to be trained at once; 0: as many as the policy says.
        recall: looks up what other runs have measured.
        dry_run: whether it is for an estimate.
    """
    config = job.config
    return Context(
        evaluator=job.evaluator.name,
        synthetic=synthetic,
        set_sha256=set_sha256,
        iteration=iteration,
        final=final,
        test=parts.test,
        validation=parts.validation if config.validates else None,
        train=parts.train,
        apart=parts.validation,
        start=starting_images(job, parts.train),
        recall=recall,
        dry_run=dry_run,
        made_seconds=config.execution.made_seconds,
        card=job.card,
        networks=config.evaluate_on,
        repeats=config.eval_repeats,
        protocol=config.protocol,
        seeds=Seeds(config.seed),
        policy=replace(job.policy, stack=stack or job.policy.stack),
    )
