"""A model of the Hugging Face hub, downloaded once into the cache that all nodes share."""
