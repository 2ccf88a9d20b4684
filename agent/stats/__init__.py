"""What the node, its pods and their containers use: read from cgroups, told as a kubelet tells it."""
