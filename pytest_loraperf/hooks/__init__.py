"""What the hooks of the plugin do."""
