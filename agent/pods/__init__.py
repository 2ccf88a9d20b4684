"""The Node's pods: desired set, translation, planning, status, workers, volumes and garbage collection."""
