"""The pooled fits that federated ones are compared with, by an independent library."""

from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
import statsmodels.formula.api as smf

FAMILIES = {
    "gaussian": sm.families.Gaussian,
    "binomial": sm.families.Binomial,
    "poisson": sm.families.Poisson,
    "gamma": sm.families.Gamma,
}
LINKS = {
    "identity": sm.families.links.Identity,
    "log": sm.families.links.Log,
    "inverse": sm.families.links.InversePower,
    "logit": sm.families.links.Logit,
    "probit": sm.families.links.Probit,
    "cloglog": sm.families.links.CLogLog,
    "sqrt": sm.families.links.Sqrt,
}


def fit_pooled(frame: pd.DataFrame, formula: str, family: str, link: str, fit: dict[str, Any], **model: Any) -> Any:
    """Statsmodels' GLM, iterated until its coefficients stand still to rounding error."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its remarks on links that leave the family's range
        made = smf.glm(formula, frame, family=FAMILIES[family](LINKS[link]()), **model)
        result = made.fit(tol=1e-13, tol_criterion="params", maxiter=300, **fit)
        # Its covariance is of the step before the last; one more step from the end brings it up to date.
        return made.fit(start_params=result.params, tol=1e-13, tol_criterion="params", maxiter=300, **fit)


def split(frame: pd.DataFrame, num_sites: int, seed: int) -> dict[str, pd.DataFrame]:
    """The records dealt out to sites at random, unevenly."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(num_sites, 2.0))
    site = rng.choice(num_sites, len(frame), p=share)
    return {f"hospital {i}": frame[site == i].reset_index(drop=True) for i in range(num_sites)}


def relative(got: Any, expected: Any) -> float:
    """Largest relative difference."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    return float(np.max(np.abs(got - expected) / np.maximum(np.abs(expected), 1e-300)))
