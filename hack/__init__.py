"""What a developer of edgelet runs: builds, a local control plane, test images, an own containerd, benchmarks."""
