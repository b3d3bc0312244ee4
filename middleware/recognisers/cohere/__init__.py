"""Cohere: chat, embed and rerank."""
