"""The message class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, Class, Enum, Field, Message, Param
from domzero.idl.types import DATETIME, INT, STRING, VOID, EnumOf, MapOf, RecordOf, RefTo, SetOf

CLASS = Class(
    "message",
    "An alert about some object, kept until someone deletes it.",
    "orlando",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name", STRING, RUNTIME, "rio",
            "Short code naming the kind of alert."),
        Field("priority", INT, RUNTIME, "rio",
            "Urgency as a number; 1 is the most serious and larger numbers are less so."),
        Field("cls", EnumOf("cls"), RUNTIME, "orlando",
            "Kind of object the alert is about."),
        Field("obj_uuid", STRING, RUNTIME, "rio",
            "UUID of the object the alert is about; the object may since have gone."),
        Field("timestamp", DATETIME, RUNTIME, "rio",
            "When the alert was raised."),
        Field("body", STRING, RUNTIME, "rio",
            "Details of the alert, as plain text or XML depending on its kind."),
    ),
    messages=(
        Message("get_all_records_where",
            (
                Param("expr", STRING, "Filter expression."),
            ), MapOf(RefTo("message"), RecordOf("message")), "orlando",
            "Returns alerts, keyed by reference; the filter expression may not be honoured for this class.",
            least_role="read-only", asynchronous=False),
        Message("get_all_records", (), MapOf(RefTo("message"), RecordOf("message")), "orlando",
            "Returns every alert held, keyed by reference.", least_role="read-only", asynchronous=False),
        Message("get_by_uuid",
            (
                Param("uuid", STRING, "UUID to look for."),
            ), RefTo("message"), "orlando",
            "Finds the alert with the given UUID; fails when there is none.",
            least_role="read-only", asynchronous=False),
        Message("get_record",
            (
                Param("self", RefTo("message"), "The message to act on."),
            ), RecordOf("message"), "orlando",
            "Returns all the details of one alert.", least_role="read-only", asynchronous=False),
        Message("get_since",
            (
                Param("since", DATETIME, "Only alerts later than this are returned."),
            ), MapOf(RefTo("message"), RecordOf("message")), "orlando",
            "Returns the alerts raised after a point in time, keyed by reference.",
            least_role="read-only", asynchronous=False),
        Message("get_all", (), SetOf(RefTo("message")), "orlando",
            "Lists references of every alert held.", least_role="read-only", asynchronous=False),
        Message("get",
            (
                Param("cls", EnumOf("cls"), "Kind of object."),
                Param("obj_uuid", STRING, "UUID of the object; it must exist."),
                Param("since", DATETIME, "Only alerts later than this are returned."),
            ), MapOf(RefTo("message"), RecordOf("message")), "orlando",
            "Returns alerts about one object raised after a point in time, keyed by reference.",
            least_role="read-only", asynchronous=False),
        Message("destroy_many",
            (
                Param("messages", SetOf(RefTo("message")), "The alerts to delete."),
            ), VOID, "22.19.0",
            "Deletes several alerts in one call, which is faster than one by one.",
            least_role="pool-operator", asynchronous=False),
        Message("destroy",
            (
                Param("self", RefTo("message"), "The message to act on."),
            ), VOID, "orlando",
            "Deletes one alert.", least_role="pool-operator", asynchronous=False),
        Message("create",
            (
                Param("name", STRING, "Short code naming the kind of alert."),
                Param("priority", INT, "Urgency as a number, 1 being the most serious."),
                Param("cls", EnumOf("cls"), "Kind of object the alert is about."),
                Param("obj_uuid", STRING, "UUID of that object."),
                Param("body", STRING, "Details to show."),
            ), RefTo("message"), "orlando",
            "Raises an alert about an object, visible to all clients.",
            least_role="pool-operator", asynchronous=False),
    ),
    enums=(
        Enum("cls",
            "Kinds of object an alert can be about.",
            {
                "VM": "A virtual machine.",
                "Host": "A physical host.",
                "SR": "A storage repository.",
                "Pool": "The whole pool.",
                "VMPP": "A VM protection policy, a feature since withdrawn.",
                "VMSS": "A snapshot schedule.",
                "PVS_proxy": "A provisioning-services cache proxy.",
                "VDI": "A virtual disk.",
                "Certificate": "A TLS certificate.",
            }),
    ),
    has_getters=False,
    has_get_all=False,
)
