"""What users import and type, against a real server."""
