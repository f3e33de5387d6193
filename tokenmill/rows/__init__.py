"""Packed rows: arrays, format on disk, masking, and the order in which training reads them."""
