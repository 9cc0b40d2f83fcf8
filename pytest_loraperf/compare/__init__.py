"""Results files against each other: two, many in their order, or of several libraries."""
