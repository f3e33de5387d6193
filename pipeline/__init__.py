"""What runs, and where: the DAG, its configuration, the runners and the command line."""
