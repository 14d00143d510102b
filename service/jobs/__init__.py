"""Jobs: what was asked for, where it stands, and who computes it."""
