"""What a search asks for, and how it is answered."""
