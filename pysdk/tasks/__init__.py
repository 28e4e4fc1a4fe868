"""What a sampler does beside drawing: one file a task, which makes the requests to the chain."""
