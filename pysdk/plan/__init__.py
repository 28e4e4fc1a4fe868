"""engine.plan: the network, its schedule and its compiled engines in one file."""
