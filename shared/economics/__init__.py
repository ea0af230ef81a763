"""Whether a distillation pays for itself, and when (E1, E2)."""

from shared.economics.break_even import BreakEven, Sensitivity, break_even, sensitivity
from shared.economics.chart import svg, text

__all__ = ["BreakEven", "Sensitivity", "break_even", "sensitivity", "svg", "text"]
