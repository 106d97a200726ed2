"""The seam to language models: providers, the embedded model, caching, prices."""
