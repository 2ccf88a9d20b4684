"""Many nodes on one machine against one real API server: `python -m hack.fleet N`. What they mean is in docs/scale.md."""
