"""The machine as a whole. The Linux control really acts; the simulated one only remembers what was asked."""
