"""The app: `specinspect open`."""
