"""What a report of a sweep or a run is made of: comparisons, figures, pages."""
