"""Every theorem as a check with a verdict: what is guaranteed, what holds here, by how much (MATH A–E, I)."""
