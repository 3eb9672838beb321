"""The PVS_cache_storage class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, Class, Field
from domzero.idl.types import INT, NULL_REF, STRING, RefTo

CLASS = Class(
    "PVS_cache_storage",
    "Space on a storage repository set aside on one host for a provisioning site's cache.",
    "ely",
    fields=(
        Field("uuid", STRING, RUNTIME, "ely",
            "Unique identifier, stable for the life of the object."),
        Field("host", RefTo("host"), CONSTRUCTOR, "ely",
            "Host that uses the cache.", default=NULL_REF),
        Field("SR", RefTo("SR"), CONSTRUCTOR, "ely",
            "Repository on which the cache disk is kept.", default=NULL_REF),
        Field("site", RefTo("PVS_site"), CONSTRUCTOR, "ely",
            "Provisioning site whose data is cached.", default=NULL_REF),
        Field("size", INT, CONSTRUCTOR, "ely",
            "Space to give to the cache, in bytes.", default=21474836480),
        Field("VDI", RefTo("VDI"), RUNTIME, "ely",
            "Disk that holds the cached data; null until the cache is first used.", default=NULL_REF),
    ),
    constructor_role="pool-operator",
    destructor_role="pool-operator",
)
