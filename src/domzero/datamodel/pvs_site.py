"""The PVS_site class."""

from __future__ import annotations

from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Field, Message, Param
from domzero.idl.types import STRING, VOID, RefTo, SetOf

CLASS = Class(
    "PVS_site",
    "A Citrix Provisioning Services site known to the pool, grouping its servers, caches and proxies.",
    "ely",
    fields=(
        Field("uuid", STRING, RUNTIME, "ely",
            "Unique identifier, stable for the life of the object."),
        Field("name_label", STRING, RW, "ely",
            "Short name shown for the site.", default="", setter_role="pool-operator"),
        Field("name_description", STRING, RW, "ely",
            "Longer human-readable notes about the site.", default="", setter_role="pool-operator"),
        Field("PVS_uuid", STRING, CONSTRUCTOR, "ely",
            "Identifier that Provisioning Services itself gives to the site.", default=""),
        Field("cache_storage", SetOf(RefTo("PVS_cache_storage")), RUNTIME, "ely",
            "Storage on each host that the site's proxies may use as cache.",
            default=(), inverse="PVS_cache_storage.site"),
        Field("servers", SetOf(RefTo("PVS_server")), RUNTIME, "ely",
            "Provisioning servers that belong to the site.", inverse="PVS_server.site"),
        Field("proxies", SetOf(RefTo("PVS_proxy")), RUNTIME, "ely",
            "Proxies serving VM interfaces from the site.", inverse="PVS_proxy.site"),
    ),
    messages=(
        Message("set_PVS_uuid",
            (
                Param("self", RefTo("PVS_site"), "The PVS_site to act on."),
                Param("value", STRING, "Identifier to record for the site."),
            ), VOID, "ely",
            "Records the identifier that Provisioning Services gives to the site.", least_role="pool-operator"),
        Message("forget",
            (
                Param("self", RefTo("PVS_site"), "The PVS_site to act on."),
            ), VOID, "ely",
            "Removes the site's record; refused while it has servers or running proxies.",
            errors=("PVS_SITE_CONTAINS_RUNNING_PROXIES", "PVS_SITE_CONTAINS_SERVERS",), least_role="pool-operator"),
        Message("introduce",
            (
                Param("name_label", STRING, "Name to show for the site."),
                Param("name_description", STRING, "Description to show for the site."),
                Param("PVS_uuid", STRING, "Identifier the site has in Provisioning Services."),
            ), RefTo("PVS_site"), "ely",
            "Adds a record for a provisioning site that exists outside the pool.", least_role="pool-operator"),
    ),
    has_get_by_name_label=True,
)
