"""Tasks: what is asked, where the rows come from, how prompts are made of them."""
