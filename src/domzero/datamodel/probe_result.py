"""The probe_result class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, Class, Durability, Field
from domzero.idl.types import BOOL, STRING_MAP, OptionOf, RecordOf

CLASS = Class(
    "probe_result",
    "One possibility found by an extended storage probe: settings to use and any repository already there.",
    "kolkata",
    fields=(
        Field("configuration", STRING_MAP, RUNTIME, "kolkata",
            "Device configuration settings that lead to the item found."),
        Field("complete", BOOL, RUNTIME, "kolkata",
            "True if the settings suffice to create or introduce a repository; false if a further probe is needed."),
        Field("sr", OptionOf(RecordOf("sr_stat")), RUNTIME, "kolkata",
            "Details of the existing repository found with these settings, if there is one."),
        Field("extra_info", STRING_MAP, RUNTIME, "kolkata",
            "Additional facts from the driver to help a person choose, with no effect on configuration."),
    ),
    durability=Durability.NONE,
    has_getters=False,
    has_get_all=False,
    emits_events=False,
)
