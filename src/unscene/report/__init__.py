"""What a model is worth and what it found: evaluation, figures, pages, COCO files, your own images decomposed."""
