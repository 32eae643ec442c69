"""The policy engine: a YAML file checked with positions, compiled once, evaluated in three-valued logic."""

from streams.policy.policy import CheckReport, CompiledPolicy, Evaluation, Fired, check_policy, load_policy
from streams.policy.resolve import Resolution, RuleHit, resolve
from streams.policy.rules import ENGINE, Rule

__all__ = [
    "ENGINE",
    "CheckReport",
    "CompiledPolicy",
    "Evaluation",
    "Fired",
    "Resolution",
    "Rule",
    "RuleHit",
    "check_policy",
    "load_policy",
    "resolve",
]
