"""What a model is worth and what it found: evaluation, figures, the page, COCO files, and your own images decomposed."""
