"""Drawing: a draw_ function takes plain data and returns a Matplotlib figure, for a stage, a tool or a notebook."""
