"""Networks of Open vSwitch: its database from plans, cards' rules as flows, and what is there again after a restart."""
