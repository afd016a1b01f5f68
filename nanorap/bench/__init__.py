"""What bench.py is made of: timed workloads, baselines, results, and estimates from the shape of a model."""
