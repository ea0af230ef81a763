"""The statistics behind every verdict (G13). Pure functions; each names its source.

proportion   one rate, two independent rates
paired       candidate against baseline on the same items
multiple     many slices at once
power        the smallest difference a sample can find
sequential   evidence that may be looked at after every outcome
latency      percentiles and their ratio
"""

from shared.statistics.latency import percentile_ratio
from shared.statistics.multiple import compare_slices, fallen, holm
from shared.statistics.paired import (
    NonInferiority,
    compare_paired,
    mcnemar_p,
    mean_with_interval,
    non_inferior,
    paired_bootstrap,
    paired_difference,
)
from shared.statistics.power import (
    detectable_paired,
    detectable_two_sample,
    items_for_paired,
)
from shared.statistics.proportion import compare_two_samples, proportion, wilson
from shared.statistics.sequential import (
    difference_sequence,
    evidence_above,
    evidence_below,
    rate_sequence,
)

__all__ = [
    "NonInferiority",
    "compare_paired",
    "compare_slices",
    "compare_two_samples",
    "detectable_paired",
    "detectable_two_sample",
    "difference_sequence",
    "evidence_above",
    "evidence_below",
    "fallen",
    "holm",
    "items_for_paired",
    "mcnemar_p",
    "mean_with_interval",
    "non_inferior",
    "paired_bootstrap",
    "paired_difference",
    "percentile_ratio",
    "proportion",
    "rate_sequence",
    "wilson",
]
