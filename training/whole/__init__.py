"""Tasks where a whole volume has a binary label: two groups of a cohort, or a planted growth."""
