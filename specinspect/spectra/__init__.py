"""From linear maps to singular spectra, in float64, with floors that say how far to trust them."""
