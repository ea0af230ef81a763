"""KTO's weights of desirable and undesirable rows (ERRATA 2).

Ethayarajh et al., 2024 (arXiv:2402.01306), section 4.2: with n_D desirable and n_U undesirable rows
the weights should keep (lambda_D n_D) / (lambda_U n_U) between 1 and 4/3.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.preference import PreferenceParameters

LOWEST, HIGHEST = 1.0, 4 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassWeights:
    """The two weights, and the balance they give."""

    desirable: float
    undesirable: float
    balance: float
    """(lambda_D n_D) / (lambda_U n_U)."""

    @property
    def warning(self) -> str:
        """What to tell the user; empty where the balance is one the paper advises."""
        if LOWEST - 1e-9 <= self.balance <= HIGHEST + 1e-9:
            return ""
        return (
            f"desirable rows weigh {self.balance:.2f} times the undesirable ones, outside "
            "[1, 4/3]: set method.preference.weights to auto, or change the two weights"
        )


def class_weights(
    preference: PreferenceParameters, *, desirable: int, undesirable: int
) -> ClassWeights:
    """The weights of a dataset with so many rows of each kind, both at least 1.

    `auto` leaves the more frequent kind at 1 and raises the other just into the range.
    """
    counts = desirable / undesirable
    if preference.weights == "given":
        good, bad = preference.desirable_weight, preference.undesirable_weight
    else:
        good, bad = max(1.0, LOWEST / counts), max(1.0, counts / HIGHEST)
    return ClassWeights(desirable=good, undesirable=bad, balance=good / bad * counts)
