"""The TOML configuration: models, loading, generated reference. Its only reader."""
