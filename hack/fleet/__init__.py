"""Many nodes on one machine against one real API server: `python -m hack.fleet N`; see docs/scale.md."""
