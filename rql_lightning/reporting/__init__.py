"""Console output, tables, figures, videos and metrics files."""
