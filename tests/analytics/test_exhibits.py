"""What results give to a report: tables, figures, words and papers."""

import re

import numpy as np
import pandas as pd
import pytest

import wardround as wr
from wardround.analytics.census import census
from wardround.analytics.describe import describe
from wardround.analytics.glm import glm
from wardround.analytics.quantiles import quantiles
from wardround.analytics.result import FigureExhibit, Headlined, Result, TableExhibit


def ward(seed, n=150):
    rng = np.random.default_rng(seed)
    age = rng.normal(60, 10, n).round()
    frame = pd.DataFrame({"age": age, "sex": rng.choice(["f", "m"], n), "stay": rng.gamma(2, 3, n).round(1)})
    frame["died"] = rng.random(n) < 1 / (1 + np.exp((65 - age) / 8))
    return frame.assign(age=frame["age"].where(frame.index > 9))


FEDERATION = wr.simulate({"North": ward(1), "South": ward(2)})
WORKFLOWS = {
    "census": census(),
    "describe": describe(by="died"),
    "describe everybody": describe(),
    "quantiles": quantiles(),
    "logistic": glm("died ~ age * C(sex)", family="binomial"),
    "linear": glm("stay ~ age", covariance="HC3"),
    "ridge": glm("stay ~ age", l2=1.0, covariance="cluster", cluster="patient"),
    "constant": glm("stay ~ 1"),
}


@pytest.fixture(scope="module", params=WORKFLOWS)
def result(request):
    return FEDERATION.run(WORKFLOWS[request.param])


def test_every_result_is_one(result):
    assert isinstance(result, Result)
    exhibits = result.exhibits()
    assert exhibits
    assert len({exhibit.title for exhibit in exhibits}) == len(exhibits)
    for exhibit in exhibits:
        if isinstance(exhibit, FigureExhibit):
            assert exhibit.draw().axes
            assert len(exhibit.description) > 20
        else:
            assert isinstance(exhibit, TableExhibit)
            assert len(exhibit.frame)


def test_every_paper_that_is_cited_is_listed_and_the_other_way_round(result):
    cited = {match[1] for match in re.finditer(r"\((\w+)[^()]* (?:19|20)\d\d\)", result.methods())}
    assert cited == {reference.split()[0] for reference in result.references}


def test_methods_are_sentences(result):
    assert re.fullmatch(r"[^\s].*\.", result.methods())
    assert "None" not in result.methods()


def fit(name):
    return FEDERATION.run(WORKFLOWS[name])


def test_a_logistic_model_is_shown_by_its_odds_ratios():
    model = fit("logistic")
    figure, table, *_ = model.exhibits()
    assert (figure.kind, table.kind) == ("forest", "forest")
    assert list(table.frame.columns) == ["Odds ratio (95% CI)", "Coefficient", "Standard error", "P value"]
    assert list(table.frame.index) == ["Intercept", "age", "sex: m", "age × sex: m"]  # noqa: RUF001
    age = next(term for term in model.terms if term.term == "age")
    assert table.frame.loc["age", "Odds ratio (95% CI)"].startswith(f"{np.exp(age.estimate):.2f}")
    assert isinstance(model, Headlined)
    (headline,) = model.headlines()
    assert headline.startswith("Died: odds ratio (95% CI) of age 1.")


def test_a_linear_model_is_shown_by_its_coefficients():
    _, table, fit_table = fit("linear").exhibits()
    assert list(table.frame.columns) == ["Coefficient (95% CI)", "Standard error", "P value"]
    assert fit_table.frame.loc["Missing by variable", "Value"] == "age 20"
    assert "robust, HC3 (MacKinnon and White 1985)" in fit("linear").methods()
    assert "ridge penalty of 1 " in fit("ridge").methods()


def test_nothing_clear_is_said_so():
    assert "No coefficient" in fit("constant").headlines()[0]


def test_table_one_has_headings_for_readers():
    table, figure = fit("describe").exhibits()
    assert table.kind == "table_one"
    assert [*table.frame.columns][:3] == ["All", "died: no", "died: yes"]
    assert ("age", "median [Q1, Q3]") in table.frame.index
    assert table.frame.loc[("Records", ""), "All"] == "300"
    assert "age (" in figure.description
    assert "age (6.7%)" in fit("describe everybody").exhibits()[1].description
