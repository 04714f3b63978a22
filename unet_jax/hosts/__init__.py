"""Several processes of one run: starting, agreeing, noticing a lost one."""
