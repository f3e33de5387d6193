"""Where the pipeline runs: this machine, Kubeflow Pipelines, Vertex AI, Kubernetes."""
