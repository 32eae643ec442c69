"""A policy file is told all that is wrong with it at once, each with its line and column."""

from __future__ import annotations

import json
import textwrap

import pytest

from schemas.errors import PolicyInvalid
from schemas.policy import MemorySettings
from streams.policy import check_policy, load_policy

RULE = "  - id: R\n    if: {x: 1}\n    then: {verdict: DENY}\n"


def errors(text, name="p.yml"):
    report = check_policy(text if isinstance(text, bytes) else textwrap.dedent(text).encode(), name=name)
    assert (report.policy is None) == bool(report.errors)
    return report.errors


def warnings(text):
    report = check_policy(textwrap.dedent(text).encode(), name="p.yml")
    assert report.errors == []
    return report.warnings


def condition(text):
    """Errors of a rule with this condition, which starts in line 3, column 9."""
    return errors(f"rules:\n  - id: R\n    if: {text}\n    then: {{verdict: DENY}}\n")


def memory(text):
    """Errors of a memory block in line 2, column 9."""
    return errors(f"rules: []\nmemory: {text}\n")


def test_all_errors_of_a_file_come_at_once_in_its_order():
    found = errors(
        """\
        version: [1]
        name: refunds
        rules:
          - id: R1
            if: {risk: {greater: 5}, any: []}
            on_missing: allow
            then: {verdict: DENY, reason_codes: [lower, KILL_SWITCH]}
          - id: R1
            when: {risk: 1}
            stage: HARD_BLOCK
          - stage: HARD_BLOCKS
            then: {verdict: ALLOW}
        defualt: {verdict: DENY}
        """
    )
    assert found == [
        "p.yml:1:10: `version` takes a single value, not a list",
        "p.yml:2:1: unknown key `name`; did you mean `policy`?",
        "p.yml:5:17: unknown operator `greater`; did you mean `gt`?",
        "p.yml:5:35: `any` needs at least one condition",
        "p.yml:6:17: `on_missing` in stage `HARD_BLOCKS` takes `deny`, `abstain` or `escalate`, not `allow`",
        "p.yml:7:42: reason code `lower` is not a code (capitals, digits and `_`, up to 64)",
        "p.yml:7:49: reason code `KILL_SWITCH` is the engine's own; choose another",
        "p.yml:8:9: rule id `R1` is used before, on line 4",
        "p.yml:9:5: unknown key `when`; did you mean `if`?",
        "p.yml:10:12: `stage` takes `REQUIREMENTS`, `HARD_BLOCKS`, `ESCALATIONS` or `ALLOW_PATHS`, "
        "not `HARD_BLOCK`; did you mean `HARD_BLOCKS`?",
        "p.yml:11:5: a rule needs an `id`",
        "p.yml:12:12: verdict `ALLOW` in stage `HARD_BLOCKS`: only `ALLOW_PATHS` rules may allow",
        "p.yml:13:1: unknown key `defualt`; did you mean `default`?",
    ]


def test_load_raises_all_problems_and_names_the_file_as_it_was_given():
    with pytest.raises(PolicyInvalid) as raised:
        load_policy(b"rulez: []\nfx: 1\n", name="conf/../p.yml")
    assert raised.value.problems == [
        "conf/../p.yml:1:1: unknown key `rulez`; did you mean `rules`?",
        "conf/../p.yml:1:1: a policy needs `rules`",
        "conf/../p.yml:2:5: `fx` takes a mapping such as `{EUR: 1.08}`, not `1`",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{x: {greater_than: 1}}", "3:14: unknown operator `greater_than`; did you mean `gt`?"),
        ("{x: {'>=': 1}}", "3:14: unknown operator `>=`; did you mean `gte`?"),
        ("{x: {bewteen: [1, 2]}}", "3:14: unknown operator `bewteen`; did you mean `between`?"),
        ("{x: {GT: 1}}", "3:14: unknown operator `GT`; did you mean `gt`?"),
        ("{evidence: {x: 1}}", "3:21: unknown operator `x`; for the fact inside `evidence` write `evidence.x`"),
        ("{x: {gt: true}}", "3:18: `gt` takes a number, or text to compare with text such as dates"),
        ("{x: {between: [1]}}", "3:23: `between` takes a list of two, the lowest and the highest value"),
        ("{x: {between: [1, a]}}", "3:23: `between` takes two numbers or two texts, not one of each"),
        ("{x: {between: [2, 1]}}", "3:23: `between` takes the lowest value first"),
        ("{x: {in: 1}}", "3:18: `in` takes a list of values"),
        ("{x: {in: [[1]]}}", "3:19: each value of `in` takes a single value, not a list"),
        ("{x: {not_in: [null]}}", "3:22: `not_in` takes a list of texts, numbers, true or false"),
        ("{x: {starts_with: 1}}", "3:27: `starts_with` takes a text of at least one character"),
        ("{x: {ends_with: ''}}", "3:25: `ends_with` takes a text of at least one character"),
        ("{x: {exists: yes}}", "3:22: `exists` takes `true` or `false`"),
        ("{x: {matches: '('}}", "3:23: `matches` `(`: bad pattern: missing ): ("),
        (r"{x: {matches: '(?=a)'}}", "3:23: `matches` `(?=a)`: bad pattern: invalid perl operator: (?="),
        ("{x: {eq: [1]}}", "3:18: `eq` takes one text, number, true or false; for several values use `in`"),
        ("{x: {eq: {a: 1}}}", "3:18: `eq` takes a value, not a mapping"),
        ("{x: [1, 2]}", "3:13: `x` is compared with a list; write `{in: [...]}`"),
        ("{x: null}", "3:13: `eq` can't compare with null; use `exists: false` for a fact that must be absent"),
        ("{x: {not: {gt: 1}}}", "3:14: unknown operator `not`; `not` stands outside the fact: `not: ...x...`"),
        ("{x: .nan}", "3:13: `.nan` is not a number a decision can be compared with"),
        ("{x: 9007199254740992}", "3:13: integer 9007199254740992 is beyond 2^53-1"),
        ("{x: 1e20}", "3:13: number 1e+20 is an integer beyond 2^53-1"),
        ("{x: 1e999}", "3:13: `inf` is not a JSON number"),
        ("{x: 1_000}", "3:13: `1_000` is a number to some YAML readers and text to others"),
        ("{x: 0x1F}", "3:13: `0x1F` is a number to some YAML readers and text to others"),
        ("{x: 017}", "3:13: `017` is a number to some YAML readers and text to others"),
        ("[x, 1]", "3:9: a condition is a mapping such as `{risk: {gte: 0.8}}`, not a list"),
        ("risk > 5", "3:9: a condition is a mapping such as `{risk: {gte: 0.8}}`, not `risk > 5`"),
        ("{all: {x: 1}}", "3:15: `all` takes a list, not a mapping"),
        ("{not: [{x: 1}]}", "3:15: a condition is a mapping such as `{risk: {gte: 0.8}}`, not a list"),
        ("{any: [{}]}", "3:16: an empty condition"),
        ("{a..b: 1}", "3:10: fact `a..b` has an empty part, or more than 12 parts between its dots"),
        ("{'': 1}", "3:10: a fact's name has 1 to 256 characters"),
        ("{time.houre: 1}", "3:10: unknown time fact `time.houre`; did you mean `time.hour`?"),
    ],
)
def test_a_bad_condition_is_explained_where_it_is(text, problem):
    found = condition(text)
    assert len(found) == 1
    assert found[0].startswith(f"p.yml:{problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: the policy is empty"),
        ("# nothing\n", "1:1: the policy is empty"),
        ("just text", "1:1: a policy takes a mapping, not `just text`"),
        ("policy: x\n", "1:1: a policy needs `rules`"),
        ("rules:\n", "1:7: `rules` takes a list, not nothing"),
        ("rules: [1]\n", "1:9: a rule takes a mapping, not `1`"),
        ("rules: []\nrules: []\n", "2:1: duplicate key `rules`, first on line 1"),
        ("rules: []\n---\nrules: []\n", "2:1: a second document; a file holds one policy"),
        ("rules: &r []\n", "1:8: anchor `&r` is not accepted; write the value out"),
        ("rules: []\nfx: *r\n", "2:5: alias `*r` is not accepted; write the value out"),
        ("rules: !!python/object:os.system []\n", "1:8: tag `!!python/object:os.system` is not accepted"),
        ("rules: []\n<<: {a: 1}\n", "2:1: merge key `<<` is not accepted; write the values out"),
        ("rules: []\n? [a]\n: 1\n", "2:3: a key must be a single word or quoted text"),
        ("rules:\n\t- id: R\n", "2:1: a tab can't be used for indentation; use spaces"),
        ("rules: [\n", "2:1: malformed YAML: "),
        ("policy: a: b\n", "1:10: malformed YAML: "),
        ("policy: '\x00'\nrules: []\n", "1:10: character '\\x00' can't stand in a policy"),
        (b"rules: []\nname: \xff\n", "2:7: not UTF-8 text"),
        ("rules: []\nmemory:\n", "2:8: `memory` takes a mapping; `{}` for the defaults, or leave it out"),
        ("policy: a b\nrules: []\n", "1:9: `policy` `a b` is not a name (letters, digits, `_.-`)"),
        ("version: ''\nrules: []\n", "1:10: `version` `` is not a version"),
        ("fx: {eur: 1}\nrules: []\n", "1:6: `eur` is not a currency code such as `EUR`"),
        ("fx: {EUR: 0}\nrules: []\n", "1:11: rate of `EUR` must be above 0, not `0`"),
        ("fx: {EUR: '1'}\nrules: []\n", "1:11: rate of `EUR` takes a number, not `1`"),
        ("fx: {USD: 2}\nrules: []\n", "1:11: rate of `USD` must be 1, because rates are in US dollars, not `2`"),
        ("rules: []\ndefault: {verdict: deny}\n", "2:20: `verdict` takes `ALLOW`, `ESCALATE`, `ABSTAIN` or `DENY`"),
        ("rules: []\ndefault: {reason_codes: [MISSING_EVIDENCE]}\n", "2:26: reason code `MISSING_EVIDENCE` is the"),
        ("rules:\n  - id: R\n    if: {x: 1}\n", "2:5: a rule needs a `stage` or a `verdict` in its `then`"),
        ("rules:\n  - id: 1R\n    stage: HARD_BLOCKS\n", "2:9: rule id `1R` is not an id"),
        ("rules:\n  - id: kill_switch\n    stage: HARD_BLOCKS\n", "2:5: rule id `kill_switch` gives the engine's own"),
        ("rules:\n  - {id: R, stage: HARD_BLOCKS, if: null}\n", "2:37: a condition is a mapping"),
        ("rules:\n  - {id: R, stage: HARD_BLOCKS, immune: 1}\n", "2:41: `immune` takes `true` or `false`, not `1`"),
        ("rules:\n  - {id: R, then: {verdict: DENY, reason_codes: []}}\n", "2:49: `reason_codes` needs at least one"),
        (
            "rules:\n  - {id: R, then: {verdict: DENY, queries: {a: 1}}}\n",
            "2:44: `queries` takes a list, not a mapping",
        ),
        (
            "rules:\n  - {id: R, then: {verdict: DENY, queries: [1]}}\n",
            "2:45: each of `queries` is a mapping or a text",
        ),
    ],
)
def test_a_bad_file_is_explained_where_it_is(text, problem):
    found = errors(text)
    assert len(found) == 1
    assert found[0].startswith(f"p.yml:{problem}")


@pytest.mark.parametrize("stage", ["REQUIREMENTS", "HARD_BLOCKS", "ESCALATIONS", "ALLOW_PATHS"])
@pytest.mark.parametrize("value", ["deny", "abstain", "escalate", "no_match", "allow", "ALLOW"])
def test_on_missing_never_allows_and_skips_only_where_nothing_blocks(stage, value):
    found = errors(f"rules:\n  - {{id: R, stage: {stage}, if: {{x: 1}}, on_missing: {value}}}\n")
    allowed = ["deny", "abstain", "escalate", *(["no_match"] if stage in ("ESCALATIONS", "ALLOW_PATHS") else [])]
    assert bool(found) == (value not in allowed)


@pytest.mark.parametrize("stage", ["REQUIREMENTS", "HARD_BLOCKS", "ESCALATIONS", "ALLOW_PATHS"])
@pytest.mark.parametrize("verdict", ["ALLOW", "DENY", "ESCALATE", "ABSTAIN"])
def test_only_allow_paths_allow_and_they_do_nothing_else(stage, verdict):
    found = errors(f"rules:\n  - {{id: R, stage: {stage}, if: {{x: 1}}, then: {{verdict: {verdict}}}}}\n")
    assert bool(found) == ((verdict == "ALLOW") != (stage == "ALLOW_PATHS"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{failure_block: 0}", "2:25: `failure_block` takes a number above 0, not `0`; a threshold above 1 switches"),
        ("{failure_block: -0.5}", "2:25: `failure_block` takes a number above 0"),
        ("{failure_block: .inf}", "2:25: `.inf` is not a number"),
        ("{failure_block: high}", "2:25: `failure_block` takes a number, not `high`"),
        ("{soften: true}", "2:18: `soften` takes a number, not `true`"),
        ("{failure_escalate: 0.95}", "2:28: `failure_escalate` (0.95) is above `failure_block` (0.92)"),
        ("{failure_block: 0.5}", "2:25: `failure_escalate` (0.82) is above `failure_block` (0.5)"),
        ("{sofen: 1}", "2:10: unknown key `sofen`; did you mean `soften`?"),
        ("{top_k: 0}", "2:17: `top_k` takes a whole number from 1 to 50, not `0`"),
        ("{half_life_days: 0}", "2:26: `half_life_days` takes a number of days from 0.001 to 36500, not `0`; without it"),
        ("{half_life_days: -30}", "2:26: `half_life_days` takes a number of days from 0.001 to 36500, not `-30`"),
        ("{half_life_days: 40000}", "2:26: `half_life_days` takes a number of days from 0.001 to 36500, not `40000`"),
        ("{half_life_days: soon}", "2:26: `half_life_days` takes a number, not `soon`"),
        ("{half_life_days: true}", "2:26: `half_life_days` takes a number"),
        ("{half_life_days: [30]}", "2:26: `half_life_days` takes a single value"),
        ("{half_life: 30}", "2:10: unknown key `half_life`; did you mean `half_life_days`?"),
        ("{decay: 30}", "2:10: unknown key `decay`; did you mean `half_life_days`?"),
        ("{top_k: 5.5}", "2:17: `top_k` takes a whole number from 1 to 50, not `5.5`"),
        ("{neighbours: 49}", "2:22: `neighbours` takes a whole number from 50 to 500, not `49`"),
        ("{amount_within: 0}", "2:25: `amount_within` takes a number above 0, not `0`"),
        ("{on_unavailable: deny}", "2:26: `on_unavailable` takes `abstain`, `escalate` or `policy_only`, not `deny`"),
        ("{weights: {text: -1}}", "2:26: weight `text` takes a number of 0 or more, not `-1`"),
        ("{weights: {text: 0, categories: 0, numbers: 0}}", "2:19: at least one weight must be above 0"),
        ("{weights: {txt: 1}}", "2:20: unknown key `txt`; did you mean `text`?"),
        ("{weights: 1}", "2:19: `weights` takes a mapping, not `1`"),
    ],
)
def test_bad_memory_settings_are_explained_where_they_are(text, problem):
    found = memory(text)
    assert len(found) == 1
    assert found[0].startswith(f"p.yml:{problem}")


def test_memory_settings_left_out_take_their_defaults_and_above_one_switches_a_step_off():
    assert load_policy(b"rules: []\n", name="p.yml").memory is None
    assert load_policy(b"rules: []\nmemory: {}\n", name="p.yml").memory == MemorySettings()
    text = b"rules: []\nmemory: {failure_block: 2, failure_escalate: 1.5, weights: {text: 0}, neighbours: 100}\n"
    settings = load_policy(text, name="p.yml").memory
    assert settings is not None
    assert settings.as_dict() == {
        **MemorySettings().as_dict(),
        "failure_block": 2,
        "failure_escalate": 1.5,
        "weights": {"text": 0, "categories": 0.4, "numbers": 0.3},
        "neighbours": 100,
    }


def test_words_that_yaml_1_1_reads_as_something_else_stay_text():
    text = b"rules:\n  - {id: R, stage: HARD_BLOCKS, if: {a: 'no', b: 2024-12-19, c: '1:30', d: TRUE, e: +5, f: .5}}\n"
    found = {leaf.fact.name: leaf.want for leaf in load_policy(text, name="p").rules[0].condition.items}
    assert list(found.values()) == ["no", "2024-12-19", "1:30", True, 5, 0.5]


def test_an_unquoted_yes_is_text_and_warned_of():
    text = "rules:\n  - {id: R, stage: HARD_BLOCKS, if: {a: yes}}\n"
    assert warnings(text) == [
        "p.yml:2:41: `yes` is text here, not a boolean; write `true` or `false`, or put it in quotes"
    ]


def test_a_json_policy_loads_whatever_its_strings_hold():
    wanted = "é \" ' \\ \n \u2028 😀 \\ud83d\\ude00 \x01"
    document = {"policy": "p", "rules": [{"id": "R", "if": {"x": wanted}, "then": {"verdict": "DENY"}}]}
    compiled = load_policy(json.dumps(document, indent=1).encode(), name="p.json")
    assert compiled.rules[0].condition.want == wanted


def test_names_and_versions_are_as_written_and_have_defaults():
    written = load_policy(b"policy: refunds\nversion: 4.10\nrules: []\n", name="x.yml")
    assert (written.name, written.version) == ("refunds", "4.10")
    left_out = load_policy(b"rules: []\n", name="some/dir/refunds v2.yml")
    assert (left_out.name, left_out.version) == ("refunds-v2", "0")
    assert (left_out.default_verdict, left_out.default_reason_codes) == ("ESCALATE", ("NO_RULE_MATCHED",))
    assert load_policy(b"rules: []\n", name="-").name == "policy"


def test_stage_verdict_and_codes_follow_from_each_other():
    text = b"""
rules:
  - {id: r.one-a, if: {x: 1}, then: {verdict: ABSTAIN}}
  - {id: Two, if: {x: 1}, stage: ALLOW_PATHS}
  - {id: Three, if: {x: 1}, stage: REQUIREMENTS, then: {verdict: DENY, reason_codes: [A, B, A]}}
"""
    rules = load_policy(text, name="p.yml").rules
    assert [(rule.stage, rule.verdict, rule.on_missing, rule.reason_codes, rule.line) for rule in rules] == [
        ("REQUIREMENTS", "ABSTAIN", "abstain", ("R_ONE_A",), 3),
        ("ALLOW_PATHS", "ALLOW", "no_match", ("TWO",), 4),
        ("REQUIREMENTS", "DENY", "abstain", ("A", "B"), 5),
    ]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("{x: {gt: 5, lt: 3}}", "2:5: rule `R` can never match: `evidence.x` can't be `gt 5` and `lt 3`"),
        ("{all: [{x: 1}, {x: 2}]}", "2:5: rule `R` can never match: `evidence.x` can't be `eq 1` and `eq 2`"),
        ("{action_type: {in: []}}", "2:5: rule `R` can never match: `action_type` can't be `in []`"),
        ("{action_type: {gt: 5}}", "2:5: rule `R` can never match: `action_type` can't be `gt 5`"),
        ("{x: {gt: 5, starts_with: a}}", "2:5: rule `R` can never match"),
        ("{x: {exists: false, gt: 1}}", "2:5: rule `R` can never match"),
        ("{x: {in: [a, b], not_in: [b, a]}}", "2:5: rule `R` can never match"),
        ("{x: {between: [1, 2], gt: 2}}", "2:5: rule `R` can never match"),
        ("{time.hour: {gt: 23}}", "2:5: rule `R` can never match"),
        ("{any: [{x: {gt: 1, lt: 1}}, {y: {in: []}}]}", "2:5: rule `R` can never match"),
        ("{}", "2:5: rule `R` always fires: it has no condition"),
        ("{memory.available: true}", "2:5: rule `R` tests `memory` facts, which are absent"),
        ("{evidense.x: 1}", "3:10: `evidense.x` means `evidence.evidense.x`; did you mean `evidence.x`?"),
        ("{ammount: {gt: 1}}", "3:10: `ammount` means `evidence.ammount`; did you mean `amount`?"),
        ("{amount.value: 1}", "3:10: `amount.value` means `evidence.amount.value`; `amount` is a built-in fact"),
        ("{context: a}", "3:10: `context` alone means `evidence.context`"),
        ("{x: {gt: '5'}}", "3:18: `gt` compares text here; to compare numbers write 5 without quotes"),
    ],
)
def test_a_doubtful_condition_is_warned_of(text, warning):
    found = warnings(f"rules:\n  - id: R\n    if: {text}\n    then: {{verdict: DENY}}\n")
    assert len(found) == 1
    assert found[0].startswith(f"p.yml:{warning}")


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        ("DENY, {x: 1}", "DENY, {x: 1}", True),
        ("DENY, {x: 1}", "ALLOW, {x: 1, y: 2}", True),
        ("DENY, {x: {gt: 5}}", "ESCALATE, {x: {gt: 7}}", True),
        ("DENY, {x: {gt: 5}}", "ESCALATE, {x: {gte: 5}}", False),
        ("DENY, {x: {in: [a, b]}}", "DENY, {x: a}", True),
        ("ALLOW, {x: 1}", "DENY, {x: 1}", False),
        ("DENY, {x: 1, y: 2}", "DENY, {x: 1}", False),
        ("DENY, {action_type: a}", "ESCALATE, {action_type: a, risk: {gt: 1}}", True),
        ("DENY, {action_type: a}", "ESCALATE, {action_type: b, risk: {gt: 1}}", False),
        ("DENY, {any: [{x: 1}, {y: 2}]}", "DENY, {any: [{x: 1}, {y: 2}], z: 1}", True),
        ("DENY, {x: 1}", "DENY, {x: true}", False),
    ],
)
def test_a_rule_that_an_earlier_one_leaves_no_say_is_warned_of(first, second, shadowed):
    text = "rules:\n"
    for number, rule in enumerate((first, second)):
        verdict, condition_text = rule.split(", ", 1)
        text += f"  - {{id: R{number}, if: {condition_text}, then: {{verdict: {verdict}}}}}\n"
    verdict = first.split(",")[0]
    wanted = f"p.yml:3:5: rule `R1` can't change the verdict: rule `R0` on line 2 matches whenever it does and says `{verdict}`"
    assert warnings(text) == ([wanted] if shadowed else [])


def test_an_immune_rule_is_not_shadowed_by_one_that_memory_may_soften():
    text = """\
        rules:
          - {id: R0, if: {x: 1}, then: {verdict: DENY}}
          - {id: R1, if: {x: 1}, immune: true, then: {verdict: DENY}}
        """
    assert warnings(text) == []


def test_settings_without_effect_or_with_a_risk_are_warned_of():
    found = warnings(
        """\
        rules:
          - {id: R, if: {x: 1}, immune: true, on_missing: no_match, then: {verdict: ESCALATE}}
        default: {verdict: ALLOW}
        memory: {amount_within: 0.5}
        """
    )
    assert found == [
        "p.yml:2:5: rule `R`: `immune` has no effect, memory softens only `DENY`",
        "p.yml:2:5: rule `R`: `on_missing: no_match` lets a request pass that leaves out the fact",
        "p.yml:3:11: default `ALLOW` lets through everything that no rule speaks of",
        "p.yml:4:25: `amount_within` below 1 leaves out neighbours of the very same amount",
    ]


def test_the_policies_of_the_benchmark_have_nothing_to_warn_of(request):
    for path in sorted((request.config.rootpath / "benchmarks" / "policies").glob("ours*.yml")):
        report = check_policy(path.read_bytes(), name=path.name)
        assert (report.errors, report.warnings) == ([], [])
