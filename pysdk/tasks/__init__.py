"""What people do with a sampler besides drawing: one file a task, which makes the requests to the chain."""
