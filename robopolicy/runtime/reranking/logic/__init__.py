"""Signal temporal logic over predicted motion: formulas, their text, and how robustly they hold."""
