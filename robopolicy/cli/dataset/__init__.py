"""Work with stores of demonstrations: look, check, edit, import, export."""
