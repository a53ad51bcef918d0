"""Tests for the authors of plug-ins: the promises that all plug-ins of a kind keep, checked in seconds.

    from dambench.testing import check_method

    def test_mine() -> None:
        check_method("mine")

What is not kept is an AssertionError with a sentence each. dambench's own plug-ins are tested by the same functions.
"""

from dambench.testing.datasets import check_dataset
from dambench.testing.evaluators import check_evaluator
from dambench.testing.methods import check_method
from dambench.testing.networks import check_network
from dambench.testing.problems import data_card, real_set, tiny_problem

__all__ = ["check_dataset", "check_evaluator", "check_method", "check_network", "data_card", "real_set", "tiny_problem"]
