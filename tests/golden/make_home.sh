set -euo pipefail
L="$PYTHON -m lumyn"
export LUMYN_POLICY=policy.yml LUMYN_ACTOR=oncall
id() { "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["decision_id"])'; }
req() { printf '{"request_id":"%s","subject":{"type":"user","id":"usr_%s"},"action":{"type":"refund","intent":"the parcel never came","amount":{"value":%s,"currency":"USD"}},"evidence":{"chargeback_risk":%s},"context":{"inline":{"channel":"chat"}},"provenance":{"model":"gpt-4o"}}' "$1" "$1" "$2" "$3"; }
a=$(req order-1 120 0.1 | $L decide - | id)
$L label "$a" --label failure --summary "was fraud" >/dev/null
b=$(req order-2 121 0.12 | $L decide - | id)
c=$(req order-3 90 0.9 | $L decide - | id)
$L export "$a" --pack --out allow.zip; $L export "$b" --pack --out memory.zip --with-memory; 
d=$(printf '{"subject":{"type":"user","id":"u4"},"action":{"type":"refund","amount":12}}' | $L decide - | id)
$L export "$d" --pack --out missing-evidence.zip
$L kill-switch on --action-type refund --why "incident 7" >/dev/null
e=$(req order-5 30 0.1 | $L decide - | id)
$L export "$e" --pack --out kill-switch.zip
