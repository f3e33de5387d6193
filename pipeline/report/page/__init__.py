"""report.html: one self-contained page that a run leaves, drawn from the contracts' documents."""
