"""Device plugins: the calls of their service; loaded when the first plugin comes."""
