"""From a name on the command line or in a pipeline.yaml to a loaded, checked model."""
