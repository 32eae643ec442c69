"""The JSON Schema files say what the models say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import get_args

import pytest

from schemas import jsonschema
from schemas.control import ADAPTER as CONTROL
from schemas.label import EVENT, REQUEST, LabelName
from schemas.receipt import ADAPTER as RECEIPT
from schemas.receipt import DEAD_LETTER
from schemas.record import ADAPTER as RECORD
from schemas.record import DecisionRecord

HAVE_VALIDATOR = importlib.util.find_spec("jsonschema") is not None


@pytest.mark.parametrize("name", sorted(jsonschema.SCHEMAS))
def test_the_file_is_what_the_model_gives(name):
    text = (jsonschema.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert text == jsonschema.render(name), "run `python -m schemas.jsonschema`"


FIRST = """
from typing import Literal, NotRequired
NotRequired[{number}], NotRequired[Literal[{labels}] | None]
from schemas import jsonschema
print(*map(jsonschema.render, sorted(jsonschema.SCHEMAS)), sep="", end="")
"""


@pytest.mark.parametrize("number", ["int | float | None", "float | int | None"])
@pytest.mark.parametrize("labels", [get_args(LabelName), get_args(LabelName)[::-1]])
def test_a_schema_is_the_same_whatever_was_imported_before(number, labels):
    first = FIRST.format(number=number, labels=labels)
    told = subprocess.run([sys.executable, "-c", first], capture_output=True, text=True, check=True).stdout
    assert told == "".join(map(jsonschema.render, sorted(jsonschema.SCHEMAS)))


def test_there_is_a_file_for_each_contract_and_no_other():
    assert {path.stem for path in jsonschema.FOLDER.iterdir()} == set(jsonschema.SCHEMAS)


def test_every_contract_document_is_covered():
    adapters = list(jsonschema.SCHEMAS.values())
    assert all(adapter in adapters for adapter in (RECORD, RECEIPT, DEAD_LETTER, REQUEST, EVENT, CONTROL))


def test_the_record_schema_is_closed_and_asks_for_every_field():
    schema = json.loads(jsonschema.render("decision_record"))
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(DecisionRecord.__annotations__) - {"sealed"}  # only where it is sealed


def test_writing_changes_nothing_when_nothing_has_drifted(tmp_path, monkeypatch):
    before = {p.name: p.read_bytes() for p in jsonschema.FOLDER.iterdir()}
    monkeypatch.setattr(jsonschema, "FOLDER", tmp_path / "json")
    jsonschema.write()
    assert {p.name: p.read_bytes() for p in (tmp_path / "json").iterdir()} == before


@pytest.mark.skipif(not HAVE_VALIDATOR, reason="the `jsonschema` package is not installed")
@pytest.mark.parametrize("name", sorted(jsonschema.SCHEMAS))
def test_the_file_is_a_valid_schema(name):
    import jsonschema as validator

    validator.Draft202012Validator.check_schema(json.loads(jsonschema.render(name)))
