"""Where agents are started: this host, Slurm, Ray. Empty so far: agents are started by hand, one a host."""
