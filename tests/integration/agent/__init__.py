"""The whole agent as its users meet it: kubectl on one side, crictl on the other."""
