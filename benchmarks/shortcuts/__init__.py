"""Does the audit catch a model that cheats? Planted shortcuts beside clean twins."""
