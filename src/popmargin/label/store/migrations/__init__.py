"""Alembic's revisions of the label store's schema; `LabelStore.open` runs them."""
