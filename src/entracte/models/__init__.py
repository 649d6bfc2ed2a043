"""The transformer, and thin adapters over diffusers and transformers for everything else."""
