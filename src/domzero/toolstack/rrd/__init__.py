"""What was measured over time: sources, round-robin archives, their files, and the pages that show them.

The room is the toolstack's because nothing in it touches the machine: what is measured comes from the host's hands by
way of `toolstack.metrics`, and pages are functions of the toolstack. `archive`, `export`, `document`, `perfmon` and
the tables of sources are pure.
"""
