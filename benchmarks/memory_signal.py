"""Signal: does `nearby.failure_rate` know what will go wrong? Beside a fitted logistic regression, fold by fold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from labelled_data import FOLDS, Case, load
from rated import auc, brier, reliability

from lumyn.config import resolve
from lumyn.stores import make_vectoriser
from memory_service.profile import remembered_part
from memory_service.recall import Asked
from memory_service.recaller import Recaller
from memory_service.supposed import SupposedMemory
from schemas.policy import MemorySettings

_GROWTH = (100, 300, 1000, 3000, 10_000)


def events_of(cases: Sequence[Case]) -> list[Any]:
    """The labels of cases that were all allowed: `failure` where allowing was wrong."""
    return [
        {
            "version": number, "event_id": f"e{number}", "decision_id": f"{number:026d}", "tenant": "bench",
            "type": "label", "label": "failure" if case.harmful else "success", "should": None, "summary": "",
            "actor": "outcome", "at": "2026-01-01T00:00:00.000Z", "job": None,
            "decision": {"action_type": "credit", "verdict": "ALLOW", "rules": [], "amount": None,
                         "facts": remembered_part(case.request)},
        }
        for number, case in enumerate(cases, start=1)
    ]  # fmt: skip


def rates(train: Sequence[Case], test: Sequence[Case], settings: MemorySettings) -> list[float]:
    """Each test case's `nearby.failure_rate` in a memory of the training cases; the base rate where nothing is near."""
    vectoriser = make_vectoriser(resolve(None))
    memory = SupposedMemory(events_of(train), vectoriser, "bench", len(train), {})
    base = sum(case.harmful for case in train) / len(train)
    asked = [Asked(case.request, settings, len(train)) for case in test]
    out = []
    for recall in Recaller(memory, vectoriser, "bench").recall(asked):
        rate = recall.signals["nearby"]["failure_rate"]
        out.append(base if rate is None else rate)
    return out


def logistic(train: Sequence[Case], test: Sequence[Case]) -> list[float]:
    """The reference: one-hot categories, scaled numbers (missing: the median), L2 chosen by cross-validation."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def frame(cases: Sequence[Case]) -> Any:
        rows = [{**c.request["evidence"], "amount": c.request["action"].get("amount", {}).get("value")} for c in cases]
        return pd.DataFrame(rows)

    given, asked = frame(train), frame(test)
    given = given.loc[:, given.notna().any()]
    text = [name for name in given if given[name].map(lambda v: isinstance(v, str | bool)).any()]
    numbers = [name for name in given if name not in text]
    given[text], asked[text] = given[text].astype(str), asked[text].astype(str)
    model = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), text),
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        ),
        LogisticRegressionCV(Cs=6, cv=3, scoring="roc_auc", max_iter=2000),
    )
    model.fit(given, [case.harmful for case in train])
    return [float(p) for p in model.predict_proba(asked[list(given)])[:, 1]]


def measure(name: str, settings: MemorySettings, tests: int | None = None) -> dict[str, Any]:
    """AUC, Brier and reliability over all folds, and how the AUC grows with the number of labels."""
    cases = load(name)
    ours: list[float] = []
    theirs: list[float] = []
    truth: list[bool] = []
    for fold in range(FOLDS):
        train = [case for case in cases if case.fold != fold]
        test = [case for case in cases if case.fold == fold][:tests]
        ours += rates(train, test, settings)
        theirs += logistic(train, test)
        truth += [case.harmful for case in test]
    grown = {}
    train = [case for case in cases if case.fold]
    test = [case for case in cases if not case.fold][: tests or 1000]
    for count in _GROWTH:
        if count <= len(train):
            grown[count] = auc([c.harmful for c in test], rates(random.Random(count).sample(train, count), test, settings))
    base = float(np.mean(truth))
    return {
        "dataset": name, "cases": len(cases), "harmful": base, "auc": auc(truth, ours), "auc_logistic": auc(truth, theirs),
        "brier": brier(truth, ours), "brier_logistic": brier(truth, theirs), "brier_base": base * (1 - base),
        "reliability": reliability(truth, ours), "auc_by_labels": grown,
    }  # fmt: skip
