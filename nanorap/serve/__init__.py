"""The parts of serve.py: its HTTP plumbing, its queue of jobs, and the writer, which runs the model."""
