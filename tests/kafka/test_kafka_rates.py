"""Behaviour rates over a real broker: the same commands as embedded, reading what workers wrote."""

from __future__ import annotations

import json
import shlex
import sys

from conftest_e2e import refund
from inside import Inside

AGENT = """\
import json, sys
json.load(sys.stdin)
print(json.dumps({"action": {"type": "refund"}, "provenance": {"system_fingerprint": "fp_9"}}))
"""


def test_rates_of_a_pack_of_traffic_of_a_window_and_a_canary(inside: Inside, tenant: str) -> None:
    asked = [
        refund(n + 1, user=f"u{n}", provenance={"system_fingerprint": "fp_1" if n < 12 else "fp_2"}) for n in range(24)
    ]
    for n in range(12, 24):
        asked[n]["action"]["type"] = "credit_note"
    inside.run("decide", "-", stdin="\n".join(map(json.dumps, asked[:12])))
    inside.run("decide", "-", stdin="\n".join(map(json.dumps, asked[12:])))
    told = inside.json("rate", "--query", "action_type IN (refund, credit_note)", "--event", "credit_note", "--json")
    assert (told["decisions"], told["event"]["events"], told["unsound"]) == (24, 12, 0)
    change = next(one for one in told["changes"] if one["factor"] == "provenance.system_fingerprint")
    assert (change["before"]["events"], change["after"]["events"], change["after"]["n"]) == (0, 12, 12)
    rows = inside.json("list", "--query", "provenance.system_fingerprint=fp_2", "--json")
    near = inside.json("rate", "--like", rows[0]["decision_id"], "--similarity", "0", "--json")
    assert (near["decisions"], near["event"]["events"]) == (23, 11)
    ranked = inside.json("rate", "changes", "--from", "2020-01-01", "--bad", "action_type=credit_note", "--json")
    assert ranked["window"]["events"] == 12
    assert "provenance.system_fingerprint" in [one["factor"] for one in ranked["factors"][:2]]
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(inside.write('agent.py', AGENT)))}"
    inside.run("export", rows[0]["decision_id"], "--pack", "--out", "i.zip")
    sample = inside.json("rate", "--pack", "i.zip", "--command", command, "--runs", "3", "--json")
    assert sample["tenant"] == tenant and sample["outcomes"][0]["outcome"] == "refund"
    assert sample["changed_since_recorded"] == ["system_fingerprint"]
    assert [row["rate_id"] for row in inside.json("rate", "list", "--json")] == [sample["rate_id"]]
    (first,) = inside.json("watch", "canary", "--command", command, "--size", "6", "--json")
    assert (first["requests"], first["answered"], first["drifted"]) == (6, 6, False)
