"""Whether the node takes a pod: pure rules, and the gate that remembers what it decided."""
