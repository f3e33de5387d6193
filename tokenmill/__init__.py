"""What steps, commands and the server share; imports no TFX and no folder above it."""
