"""The tables of the SQLite record index, and the names that it and its queries share."""

from __future__ import annotations

import hashlib
from typing import Any

from schemas.canonical import encode
from schemas.query import LABELS

LAYOUT = "1"
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE positions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE tenants (tenant INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, count INTEGER NOT NULL);
CREATE TABLE kinds (
    kind INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, key BLOB NOT NULL, count INTEGER NOT NULL,
    verdict TEXT, action_type TEXT, subject_type TEXT, policy TEXT, policy_version TEXT, engine TEXT, currency TEXT,
    UNIQUE (tenant, key)
);
CREATE TABLE codes (
    kind INTEGER NOT NULL, field TEXT NOT NULL, place INTEGER NOT NULL, code TEXT NOT NULL,
    PRIMARY KEY (kind, field, place)
) WITHOUT ROWID;
CREATE INDEX codes_code ON codes (code, field);
CREATE TABLE origins (
    origin INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, key BLOB NOT NULL, count INTEGER NOT NULL,
    UNIQUE (tenant, key)
);
CREATE TABLE origin_values (
    tenant INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, origin INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, value, origin)
) WITHOUT ROWID;
CREATE TABLE names (
    tenant INTEGER NOT NULL, name TEXT NOT NULL, distinct_values INTEGER NOT NULL, unindexed INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE marks (tenant INTEGER NOT NULL, mark BLOB NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (tenant, mark, id)) WITHOUT ROWID;
CREATE TABLE early_labels (tenant TEXT NOT NULL, id BLOB NOT NULL, label INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE TABLE rows (
    tenant INTEGER NOT NULL, id BLOB NOT NULL, kind INTEGER NOT NULL, origin INTEGER NOT NULL,
    label INTEGER, partition INTEGER NOT NULL, offset INTEGER NOT NULL, subject_id TEXT, request_id TEXT,
    amount, amount_usd, inputs_digest BLOB NOT NULL, uncertainty_score REAL, failure_similarity REAL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX rows_kind ON rows (tenant, kind);
CREATE INDEX rows_origin ON rows (tenant, origin);
CREATE INDEX rows_subject ON rows (tenant, subject_id);
CREATE INDEX rows_request ON rows (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX rows_digest ON rows (tenant, substr(inputs_digest, 1, 4));
CREATE INDEX rows_label ON rows (tenant, label) WHERE label IS NOT NULL;
"""
TABLES = (
    "positions",
    "tenants",
    "kinds",
    "codes",
    "origins",
    "origin_values",
    "names",
    "marks",
    "early_labels",
    "rows",
)
KIND_COLUMNS = ("verdict", "action_type", "subject_type", "policy", "policy_version", "engine", "currency")
KIND_FIELDS = frozenset({*KIND_COLUMNS, "reason", "rule"})
COLUMNS = "id, kind, label, partition, offset, subject_id, amount, amount_usd"
CROWDED = 1000
"""A provenance name with so many values leaves the origins."""


def label_number(name: str) -> int | None:
    """None is none: only what was labelled is in the index of labels."""
    return LABELS.index(name) or None


def key_of(values: Any) -> bytes:
    """What a kind or an origin of these values is found by."""
    return hashlib.blake2b(encode(values), digest_size=16).digest()


def mark_of(name: str, value: str) -> bytes:
    """What a value of a crowded name is found by: 96 bits of a hash."""
    return key_of([name, value])[:12]
