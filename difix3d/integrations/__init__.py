"""Other programs, which difix3d works inside of."""
