"""How the built-in teacher was made."""
