"""OpenAI's APIs, and those that copy their shapes."""
