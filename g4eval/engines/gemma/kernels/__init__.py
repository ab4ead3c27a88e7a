"""How the Gemma backend computes on one kind of device: `reference` everywhere, `cuda` fast."""
