"""A regression after multiple imputation: the tables are completed at the sites, the model is fitted to each copy.

The workflow `imputed` plans which variables are imputed and how, lets the sites complete their tables
(`imputation.py`), runs `glm` on every completed copy (`imputation_tables.py`) and pools the fits by Rubin's rules
(`imputation_pooling.py`): the steps of `imputed_run.py`.

References:
    Rubin (1987), Multiple Imputation for Nonresponse in Surveys.
    van Buuren (2018), Flexible Imputation of Missing Data, 2nd ed.
"""

from __future__ import annotations

from typing import Literal

from wardround.analytics.families import FamilyName, LinkName
from wardround.analytics.formula import plan_formula
from wardround.analytics.glm import Covariance, glm
from wardround.analytics.imputation import at_sites, begin, draw, linear_sums, logistic_sums, observed, value_sums
from wardround.analytics.imputed_result import Fitted, ImputedResult
from wardround.analytics.imputed_run import Options, attempt, check_options, codes_of, roles_of
from wardround.analytics.steady_sites import with_steady_sites
from wardround.data.contract import Setting
from wardround.sums import Steps, workflow


@workflow("imputed", version=1)
def imputed(
    setting: Setting,
    formula: str,
    family: FamilyName = "gaussian",
    link: LinkName | None = None,
    num_imputations: int = 20,
    num_iterations: int = 10,
    seed: int = 0,
    auxiliary: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    method: Literal["norm", "pmm"] = "norm",
    num_donors: int = 5,
    keeps_range: bool = True,
    imputes_by_site: bool = False,
    complete_cases: bool = True,
    offset: str | None = None,
    frequency_weights: str | None = None,
    variance_weights: str | None = None,
    covariance: Covariance = "model",
    cluster: str | None = None,
    site_intercepts: bool = False,
    confidence: float = 0.95,
) -> Steps[ImputedResult]:
    """Regression after multiple imputation by chained equations; no imputed value leaves its site.

    Args:
        setting: contract and sites.
        formula: `outcome ~ predictors`, as in `glm`. Its variables are imputed from each other; transformations and
            interactions are computed from the completed variables.
        family: distribution of the outcome.
        link: None for the family's canonical link.
        num_imputations: completed copies, 2 to 200.
        num_iterations: how often each variable is imputed in turn, 1 to 100.
        seed: of the coordinator's draws; the sites draw with generators of their own.
        auxiliary: further variables that help to impute those of the formula.
        categorical: integers of short range (codes) to be imputed as categories; those of two values always are.
        method: whether missing numbers are drawn from the normal distribution about their model, or are values of
            records of the same site whose predictions are near (predictive mean matching).
        num_donors: for the latter, how many nearest records one is chosen from.
        keeps_range: whether imputed numbers are drawn back into the contract's range.
        imputes_by_site: whether the imputation models have an intercept for each site.
        complete_cases: whether the model is also fitted to the complete records, for comparison.
        offset: as in `glm`; not imputed.
        frequency_weights: as in `glm`; not imputed.
        variance_weights: as in `glm`; not imputed.
        covariance: as in `glm`.
        cluster: as in `glm`; not imputed.
        site_intercepts: whether each site has an intercept of its own, in the model and in the imputation models.
        confidence: of the intervals.

    Raises:
        ConfigError: an option or the formula is wrong, before anything is asked.
        DataError: a variable is missing everywhere, or does not fit the family.
        ModelError: an imputation model or the model itself cannot be estimated.

    Guarantees:
        imputed_values_stay: the sites send sums only; what they imputed is kept there.
        deterministic_for_seeds: the same data and seeds (this option, and the engine's) give the same result.
    """
    plan = plan_formula(formula, setting.contract)
    roles = roles_of(plan, setting.contract, auxiliary)
    check_options(setting, num_imputations, num_iterations, seed, num_donors, imputes_by_site or site_intercepts)
    model = glm(
        formula,
        family=family,
        link=link,
        offset=offset,
        frequency_weights=frequency_weights,
        variance_weights=variance_weights,
        covariance=covariance,
        cluster=cluster,
        site_intercepts=site_intercepts,
        confidence=confidence,
    )
    options = Options(
        model=model,
        read=Fitted.of_glm,
        confidence=confidence,
        plan=plan,
        roles=roles,
        codes=codes_of(plan, setting.contract, tuple(roles), categorical),
        num_imputations=num_imputations,
        num_iterations=num_iterations,
        seed=seed,
        num_donors=num_donors if method == "pmm" else 0,
        keeps_range=keeps_range,
        by_site=imputes_by_site or site_intercepts,
        complete_cases=complete_cases,
    )
    return (yield from with_steady_sites(lambda: attempt(setting, options), len(setting.sites)))


# A module's vocabulary is what it names: the workflow with the site functions that it asks for.
__all__ = ["at_sites", "begin", "draw", "imputed", "linear_sums", "logistic_sums", "observed", "value_sums"]
