"""How sure one can be of a share that was counted: the exact (Clopper-Pearson) upper bound of a binomial proportion.

C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26 (1934). It never promises more than it says, at the price of being a little wide.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p

_STEPS = 60


def upper_bound(hits: int, trials: int, *, confidence: float = 0.95) -> float:
    """The share that *hits* of *trials* do not exceed, with *confidence* (one-sided); 1 without any trial.

    Raises:
        ValueError: not 0 <= hits <= trials, or a confidence outside (0, 1).
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"hits={hits!r}, trials={trials!r}: from 0 to trials.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}: between 0 and 1.")
    if hits == trials:
        return 1.0
    low, high = hits / trials, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _at_most(hits, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, trials: int, share: float) -> float:
    """Probability of at most *hits* in *trials* of probability *share*."""
    if share in {0.0, 1.0}:
        return 1.0 - share
    yes, no = log(share), log1p(-share)
    whole = lgamma(trials + 1)
    return sum(
        exp(whole - lgamma(k + 1) - lgamma(trials - k + 1) + k * yes + (trials - k) * no) for k in range(hits + 1)
    )
