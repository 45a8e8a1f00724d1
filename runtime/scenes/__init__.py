"""From names and files to tiles and back: grids, bands, alignment, the product. No session lives here."""
