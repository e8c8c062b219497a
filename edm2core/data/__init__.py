"""Image data: where it comes from (fetch, source_digest), its prepared form (prepare_data), and reading that (load_prepared).

Importable without torch, Pillow and scikit-learn.
"""

from edm2core.data.prepared import Prepared, load_prepared
from edm2core.data.source import digest_of, fetch, source_digest
from edm2core.data.write import prepare_data

__all__ = ["Prepared", "digest_of", "fetch", "load_prepared", "prepare_data", "source_digest"]
