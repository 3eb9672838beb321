"""The SM class."""

from __future__ import annotations

from domzero.idl.model import RUNTIME, RW, Class, Field
from domzero.idl.records import EMPTY_MAP
from domzero.idl.types import INT, STRING, STRING_MAP, STRING_SET, MapOf

CLASS = Class(
    "SM",
    "A storage driver installed on the hosts, describing one repository type and the features it offers.",
    "rio",
    fields=(
        Field("uuid", STRING, RUNTIME, "rio",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RUNTIME, "rio",
            "Short name of the storage driver, as shown to users.", default=""),
        Field("name_description", STRING, RUNTIME, "rio",
            "Longer text explaining what kind of storage the driver serves.", default=""),
        Field("type", STRING, RUNTIME, "rio",
            "The word to give as the type when creating or probing a repository with this driver, such as nfs."),
        Field("vendor", STRING, RUNTIME, "rio",
            "Company or project that supplied the driver."),
        Field("copyright", STRING, RUNTIME, "rio",
            "Copyright notice supplied by the driver's author."),
        Field("version", STRING, RUNTIME, "rio",
            "Version of the driver itself, as reported by its plug-in."),
        Field("required_api_version", STRING, RUNTIME, "rio",
            "Storage plug-in interface version that the driver was written against."),
        Field("configuration", STRING_MAP, RUNTIME, "rio",
            "Device configuration keys the driver understands, each mapped to a sentence of help."),
        Field("capabilities", STRING_SET, RUNTIME, "miami",
            "Names of the operations the driver supports; features carries the same information with version "
            "numbers.", default=(), deprecated="clearwater"),
        Field("features", MapOf(STRING, INT), RUNTIME, "clearwater",
            "Names of the supported driver features, each mapped to the revision of that feature.",
            default=EMPTY_MAP),
        Field("other_config", STRING_MAP, RW, "miami",
            "Free-form keys for use by administrators and tools.", default=EMPTY_MAP, setter_role="pool-operator"),
        Field("driver_filename", STRING, RUNTIME, "orlando",
            "File name of the driver's executable on the host.", default=""),
        Field("required_cluster_stack", STRING_SET, RUNTIME, "dundee",
            "Cluster stacks of which at least one must be running before the driver can be used; empty if none is "
            "needed.", default=()),
    ),
    has_get_by_name_label=True,
)
