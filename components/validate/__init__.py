"""Step 2, validate: statistics, schema and anomalies by TFX, and a gate that stops the run."""
