"""Services and jobs for elsewhere: container images and Kubernetes manifests, as pure mappings."""
