"""The web annotator: pages for people, a small JSON API for programs, both on one label store."""
