"""The page at /ui: models, jobs, and a volume as it forms. It reads and changes nothing."""
