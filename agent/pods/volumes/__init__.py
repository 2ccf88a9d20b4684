"""A pod's volumes on this machine: what they hold, where they lie, how they are mounted and taken away again."""
