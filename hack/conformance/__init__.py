"""The upstream end-to-end suite against the agent, measured by what a kubelet passes: `make conformance`."""
