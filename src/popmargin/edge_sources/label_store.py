"""PoP labels straight from a label store."""

from popmargin.edge_sources.base import edge_source
from popmargin.label.export.store_edges import store_edges
from popmargin.label.store.address import is_store

edge_source("label_store", claims=is_store, grows=True)(store_edges)
