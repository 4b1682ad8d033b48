"""Training in several processes: a group of workers, equal gradients, shards, a killed run."""
