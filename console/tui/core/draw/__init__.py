"""Text, glyphs and charts as lines of cells. Knows neither jobs nor Textual."""
