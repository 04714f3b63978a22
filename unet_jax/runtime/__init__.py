"""Process-level services: files, compiler, locks, signals, disks."""
