"""The data_source class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, Class, Durability, Field
from domzero.idl.types import BOOL, FLOAT, STRING

CLASS = Class(
    "data_source",
    "A measurement that can be read and, if wanted, recorded over time.",
    "orlando",
    fields=(
        Field("name_label", STRING, RUNTIME, "rio",
            "Name by which to ask for the measurement.", default=""),
        Field("name_description", STRING, RUNTIME, "rio",
            "What is being measured.", default=""),
        Field("enabled", BOOL, RUNTIME, "rio",
            "True when history is being recorded for it."),
        Field("standard", BOOL, RUNTIME, "rio",
            "True when it is recorded by default."),
        Field("units", STRING, RUNTIME, "rio",
            "Unit in which values are given."),
        Field("min", FLOAT, RUNTIME, "rio",
            "Smallest value it can take."),
        Field("max", FLOAT, RUNTIME, "rio",
            "Largest value it can take."),
        Field("value", FLOAT, RUNTIME, "rio",
            "Most recent value."),
    ),
    durability=Durability.NONE,
    has_getters=False,
    has_get_all=False,
    emits_events=False,
)
