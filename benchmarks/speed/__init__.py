"""How fast a step is, beside peers' and beside what the machine can do."""
