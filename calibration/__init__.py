"""Representative tiles and INT8 calibration; sits above `export` and nothing imports it from below."""
