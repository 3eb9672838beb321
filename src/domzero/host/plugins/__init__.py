"""Programs that the operator put on this host for clients to call, as XenServer's plugins are."""
