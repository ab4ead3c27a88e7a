"""The store: keeps everything a run made, overwrites nothing."""
