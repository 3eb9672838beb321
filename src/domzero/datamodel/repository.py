"""The Repository class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.types import BOOL, STRING, VOID, RefTo

CLASS = Class(
    "Repository",
    "A source of update packages for the hosts.",
    "1.301.0",
    fields=(
        Field("uuid", STRING, RUNTIME, "1.301.0",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "rio",
            "Name of the repository.", default="", setter_role="pool-operator"),
        Field("name_description", STRING, RW, "rio",
            "Notes about the repository.", default="", setter_role="pool-operator"),
        Field("binary_url", STRING, CONSTRUCTOR, "1.301.0",
            "Address from which packages are downloaded.", default=""),
        Field("source_url", STRING, CONSTRUCTOR, "1.301.0",
            "Address from which the matching source packages can be obtained.", default=""),
        Field("update", BOOL, CONSTRUCTOR, "1.301.0",
            "True when the repository carries update information as well as packages.", default=False),
        Field("hash", STRING, RUNTIME, "1.301.0",
            "Hash of the update information at the last synchronisation; it changes when there is something new.",
            default=""),
        Field("up_to_date", BOOL, RUNTIME, "1.301.0",
            "Whether all hosts had the latest content; deprecated in favour of the per-host field.",
            default=False, deprecated="23.18.0", removed="23.18.0"),
        Field("gpgkey_path", STRING, CONSTRUCTOR, "22.12.0",
            "File name of the public key with which the repository's signatures are checked.", default=""),
    ),
    messages=(
        Message("set_gpgkey_path",
            (
                Param("self", RefTo("Repository"), "The Repository to act on."),
                Param("value", STRING, "File name of an installed public key."),
            ), VOID, "22.12.0",
            "Changes which public key checks the repository's signatures.", least_role="pool-operator"),
        Message("forget",
            (
                Param("self", RefTo("Repository"), "The Repository to act on."),
            ), VOID, "1.301.0",
            "Deletes the repository record; refused while it is enabled for the pool.", least_role="pool-operator"),
        Message("introduce",
            (
                Param("name_label", STRING, "Name for the repository."),
                Param("name_description", STRING, "Notes about the repository."),
                Param("binary_url", STRING, "Address of the packages."),
                Param("source_url", STRING, "Address of the source packages."),
                Param("update", BOOL, "True if it carries update information."),
                Param("gpgkey_path", STRING,
                      "File name of the public key for checking signatures; empty for the default."),
            ), RefTo("Repository"), "1.301.0",
            "Registers an update source, which must then be enabled for the pool; a duplicate name or address is "
            "refused.", least_role="pool-operator"),
    ),
    has_get_by_name_label=True,
)
