"""Everything that needs scikit-learn: clusters, and later features and models. No Dagster here."""
