"""Promises that all evaluators make."""

from collections.abc import Callable

import pytest

from dambench.core import registry
from dambench.core.contracts import Evaluator
from dambench.testing.evaluators import EVALUATOR_PROMISES


@pytest.mark.parametrize("promise", EVALUATOR_PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("name", registry.names("evaluators"))
def test_every_evaluator_keeps_its_promise_that(promise: Callable[[Evaluator], None], name: str) -> None:
    promise(registry.load("evaluators", name))
