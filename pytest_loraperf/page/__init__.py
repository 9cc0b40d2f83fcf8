"""The report as one HTML page: tables, and charts drawn from Vega-Lite specifications. It reads results only."""
