"""What keeps a run from being lost: signals, the lease of a workdir, hangs, disks."""
