"""Every equation and listing that the suite relies on, executed: what is printed against what follows.

Nothing here is typed in as a finding: `findings` runs both sides of each equation at its states.
"""

from __future__ import annotations

from paper_tables.equations import (
    rskd_draws,
    rskd_ghost,
    rskd_gradients,
    rskd_listings,
    rskd_toy_listing,
    salt_accuracy,
    salt_concentration,
    salt_loss,
    salt_risk,
    salt_variance,
    sekd,
    sekd_code,
    sekd_samples,
    storage,
    tad_conclusions,
    tad_divergence,
    tad_gradients,
)
from paper_tables.equations.equation import Equation, found
from paper_tables.finding import Finding

EQUATIONS: tuple[Equation, ...] = (
    *rskd_gradients.EQUATIONS,
    *rskd_ghost.EQUATIONS,
    *rskd_draws.EQUATIONS,
    *rskd_listings.EQUATIONS,
    *rskd_toy_listing.EQUATIONS,
    *storage.EQUATIONS,
    *tad_divergence.EQUATIONS,
    *tad_gradients.EQUATIONS,
    *tad_conclusions.EQUATIONS,
    *sekd.EQUATIONS,
    *sekd_samples.EQUATIONS,
    *sekd_code.EQUATIONS,
    *salt_loss.EQUATIONS,
    *salt_variance.EQUATIONS,
    *salt_concentration.EQUATIONS,
    *salt_risk.EQUATIONS,
    *salt_accuracy.EQUATIONS,
)


def findings() -> list[Finding]:
    """One for each equation, in the order above."""
    return [found(equation) for equation in EQUATIONS]
