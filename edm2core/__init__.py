"""EDM2 diffusion training: the science and its bookkeeping, without Kubernetes or Kubeflow."""
