"""The study: what pictures of networks with known concepts show, in numbers."""
