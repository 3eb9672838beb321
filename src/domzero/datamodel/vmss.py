"""The VMSS class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Enum, Field, Message, Param
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import BOOL, DATETIME, INT, NEVER, STRING, STRING_MAP, VOID, EnumOf, RefTo, SetOf

CLASS = Class(
    "VMSS",
    "A schedule that takes snapshots of a group of machines and keeps only the most recent ones.",
    "falcon",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "rio",
            "Human-readable name; it need not be unique.", default="", setter_role="pool-operator"),
        Field("name_description", STRING, RW, "rio",
            "Free-form notes describing the schedule.", default="", setter_role="pool-operator"),
        Field("enabled", BOOL, RW, "rio",
            "True to take snapshots at the scheduled times; false suspends the schedule.",
            default=True, setter_role="pool-operator"),
        Field("type", EnumOf("vmss_type"), CONSTRUCTOR, "rio",
            "Kind of snapshot the schedule takes."),
        Field("retained_snapshots", INT, CONSTRUCTOR, "rio",
            "How many scheduled snapshots to keep for each machine before the oldest is deleted.", default=7),
        Field("frequency", EnumOf("vmss_frequency"), CONSTRUCTOR, "rio",
            "How often snapshots are taken."),
        Field("schedule", STRING_MAP, CONSTRUCTOR, "rio",
            "When snapshots are taken, given as min, hour and days entries to suit the frequency.",
            default=EMPTY_MAP),
        Field("last_run_time", DATETIME, RUNTIME, "rio",
            "When the schedule last ran, in UTC.", default=NEVER),
        Field("VMs", SetOf(RefTo("VM")), RUNTIME, "rio",
            "The machines covered by the schedule.", inverse="VM.snapshot_schedule"),
    ),
    messages=(
        Message("set_type",
            (
                Param("self", RefTo("VMSS"), "The VMSS to act on."),
                Param("value", EnumOf("vmss_type"), "The new kind of snapshot."),
            ), VOID, "falcon",
            "Changes which kind of snapshot the schedule takes.", least_role="pool-operator"),
        Message("set_last_run_time",
            (
                Param("self", RefTo("VMSS"), "The VMSS to act on."),
                Param("value", DATETIME, "Time of the latest run, in UTC."),
            ), VOID, "falcon",
            "Records when the schedule last ran; intended for the scheduler itself."),
        Message("remove_from_schedule",
            (
                Param("self", RefTo("VMSS"), "The VMSS to act on."),
                Param("key", STRING, "Timetable entry to delete."),
            ), VOID, "falcon",
            "Deletes one entry of the timetable.", least_role="pool-operator"),
        Message("add_to_schedule",
            (
                Param("self", RefTo("VMSS"), "The VMSS to act on."),
                Param("key", STRING, "Timetable entry to add: min, hour or days."),
                Param("value", STRING, "Content of the entry."),
            ), VOID, "falcon",
            "Adds one entry to the timetable; fails if the entry or its content is not acceptable.",
            least_role="pool-operator"),
        Message("set_schedule",
            (
                Param("self", RefTo("VMSS"), "The VMSS to act on."),
                Param("value", STRING_MAP, "The complete new timetable."),
            ), VOID, "falcon",
            "Replaces the timetable; fails if an entry is not acceptable.", least_role="pool-operator"),
        Message("set_frequency",
            (
                Param("self", RefTo("VMSS"), "The VMSS to act on."),
                Param("value", EnumOf("vmss_frequency"), "The new interval."),
            ), VOID, "falcon",
            "Changes how often snapshots are taken.", least_role="pool-operator"),
        Message("set_retained_snapshots",
            (
                Param("self", RefTo("VMSS"), "The VMSS to act on."),
                Param("value", INT, "Number of snapshots to keep."),
            ), VOID, "falcon",
            "Changes how many scheduled snapshots are kept for each machine.", least_role="pool-operator"),
        Message("snapshot_now",
            (
                Param("vmss", RefTo("VMSS"), "The VMSS to act on."),
            ), STRING, "falcon",
            "Runs the schedule at once, outside its timetable, and returns a result text.",
            least_role="pool-operator"),
    ),
    enums=(
        Enum("vmss_type",
            "Kinds of snapshot a schedule can take.",
            {
                "snapshot": "Disks and configuration only.",
                "checkpoint": "Disks, configuration and memory.",
                "snapshot_with_quiesce": "Disks, after the guest has flushed its applications.",
            }),
        Enum("vmss_frequency",
            "How often a schedule takes snapshots.",
            {
                "hourly": "Once an hour.",
                "daily": "Once a day.",
                "weekly": "On chosen days of the week.",
            }),
    ),
    has_get_by_name_label=True,
    constructor_role="pool-operator",
    destructor_role="pool-operator",
)
