"""Node-pressure eviction: what runs short, which pods go for it, and how the node says so."""
