"""A workdir in a bucket: each process works on a copy, and the bucket is the truth."""
