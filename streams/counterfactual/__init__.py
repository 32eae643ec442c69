"""Counterfactuals: the nearest change that would have altered a verdict, found by deciding again."""

from streams.counterfactual.search import Counterfactual, Searched, counterfactuals

__all__ = ["Counterfactual", "Searched", "counterfactuals"]
