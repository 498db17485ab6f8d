"""What a call will use, before it runs: an upper bound of its input and a learned bound of its output.

The numbers behind every constant, and how to measure them again, are in `docs/estimates.md`.
"""

from agentbudget.estimating.estimator import Estimator
from agentbudget.estimating.sizes import RequestSize, measure
from agentbudget.estimating.vocabulary import Vocabulary

__all__ = ["Estimator", "RequestSize", "Vocabulary", "measure"]
