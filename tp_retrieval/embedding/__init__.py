"""Text to vectors. torch and transformers live here."""
