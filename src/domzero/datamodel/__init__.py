"""The XenAPI as data: one file per class, plus errors and roles. No behaviour; `graph.GRAPH` holds it all, checked."""
