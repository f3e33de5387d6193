"""Studies: many small trainings beside the pipeline that say what a model or a text is worth."""
