"""Public data sets and weights: fetched from their publishers, checked, unpacked safely."""
