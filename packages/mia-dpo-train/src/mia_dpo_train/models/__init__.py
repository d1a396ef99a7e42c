"""What the trainer must know of a model, how it is made trainable, and how it is merged."""
