"""What stands around a training run: checks of its data, gates, a registry, costs."""
