"""Files: judged before they are read, written whole or not at all."""
