"""Networks: rows and the plan that follows from them, interfaces, VLANs, bonds, cards, management."""
