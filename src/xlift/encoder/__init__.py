"""The pretrained multilingual encoder: where it comes from, its forward pass, and what of it is trained."""
