"""What every stage and tool needs: how it fails, and the files that stages exchange."""
