"""A server for laptops and tests that speaks TensorFlow Serving's REST and gRPC API."""
