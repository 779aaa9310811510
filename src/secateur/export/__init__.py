"""Other forms of a checkpoint: packed for the disk, and what other programs read."""
