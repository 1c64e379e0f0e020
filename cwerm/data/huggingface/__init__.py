"""Data sets of Hugging Face's library, as it saves them and as it has them in its cache."""
