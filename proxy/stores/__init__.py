"""Where counts live. `core/claims.py` states the port; here is who answers it, one library a file."""
