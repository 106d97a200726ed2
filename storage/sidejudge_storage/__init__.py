"""DuckDB storage of sidejudge: records, migrations, one writer, many readers."""
