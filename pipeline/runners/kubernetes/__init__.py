"""Manifests that train on several machines."""
