"""What the policies of a pod ask of its network: a limit of its bandwidth, an address that stays."""
