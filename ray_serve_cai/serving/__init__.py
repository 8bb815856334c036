"""From a configuration to Ray Serve applications, and the watch over them on the head."""
