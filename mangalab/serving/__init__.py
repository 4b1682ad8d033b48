"""Several adapters served from one base model over HTTP."""
