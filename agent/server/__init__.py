"""The kubelet's HTTPS API: authentication and container logs."""
