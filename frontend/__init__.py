"""The page: files, and two views that hand them out. Speaks only the public API."""
