"""PoP labels directly from a label store."""

from popmargin.label.export.store_edges import store_edges
from popmargin.label.store.address import is_store
from popmargin.pop.edge_sources import edge_source

edge_source("label_store", claims=is_store, grows=True, leaves_out=True)(store_edges)
