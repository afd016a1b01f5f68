"""What serve.py is made of: the HTTP plumbing, the queue of jobs, and the model that writes for them."""
