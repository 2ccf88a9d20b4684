"""The Node object: facts of the machine, registration, lease, conditions."""
