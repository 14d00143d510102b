"""The contract's server side: translates between proto and domain, and nothing else."""
